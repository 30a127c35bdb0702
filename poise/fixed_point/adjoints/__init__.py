"""How gradients pass through a fixed point, one way a file."""

from poise.fixed_point.adjoints.base import Adjoint
from poise.fixed_point.adjoints.implicit import Implicit
from poise.fixed_point.adjoints.jacobian_free import JacobianFree
from poise.fixed_point.adjoints.phantom import Phantom
from poise.fixed_point.adjoints.reversible import Reversible
from poise.fixed_point.adjoints.unrolled import Unrolled

__all__ = ["Adjoint", "Implicit", "JacobianFree", "Phantom", "Reversible", "Unrolled"]
