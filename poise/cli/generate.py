"""`poise generate RUN --prompt TEXT`: continue a text."""

from __future__ import annotations

from poise.cli.errors import DONE, UsageError
from poise.cli.opening import SOLVER, open_run, run_arguments


def run(argv: list[str]) -> int:
    """Print the prompt and what the model writes after it."""
    parser = run_arguments("generate", "Continue a text with a language run.", SOLVER)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to continue")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="tokens to write (default 200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default 0.8)")
    parser.add_argument("--top_k", type=int, metavar="K", help="sample among the likeliest K tokens only")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default 0)")
    arguments = parser.parse(argv)
    for holds, sentence in (
        (arguments.tokens >= 0, f"--tokens is {arguments.tokens}; pass 0 or more."),
        (arguments.temperature >= 0, f"--temperature is {arguments.temperature}; pass 0 or more."),
        (arguments.top_k is None or arguments.top_k >= 1, f"--top_k is {arguments.top_k}; pass at least 1."),
    ):
        if not holds:
            raise UsageError(sentence)
    folder, task = open_run(arguments, SOLVER)
    if not hasattr(task, "continuation"):
        raise UsageError(f"poise generate continues language runs, but {folder.path} is a run of {task.task_name}.")
    text = task.continuation(
        arguments.prompt,
        arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    print(arguments.prompt + text)
    return DONE
