"""`poise generate RUN --prompt TEXT`: continue a text, or several in one batch."""

from __future__ import annotations

from collections import deque

from poise.cli.errors import DONE, UsageError
from poise.cli.opening import SOLVER, open_run, run_arguments


def run(argv: list[str]) -> int:
    """Print the prompts and what the model writes after them, one alone token by token."""
    parser = run_arguments("generate", "Continue a text with a language run.", SOLVER)
    parser.add_argument(
        "--prompt",
        required=True,
        action="append",
        metavar="TEXT",
        help="what to continue; several, each with --prompt, are continued in one batch",
    )
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
    prompts: list[str] = arguments.prompt
    options = {"temperature": arguments.temperature, "top_k": arguments.top_k, "seed": arguments.seed}
    found = task.continuations(prompts, arguments.tokens, **options)
    if len(prompts) > 1:
        texts = (deque(found, maxlen=1) or [[""] * len(prompts)])[0]
        print("\n\n".join(prompt + text for prompt, text in zip(prompts, texts, strict=True)))
        return DONE
    shown = 0
    for texts in found:  # a prompt that cannot be read is refused before anything is shown
        text = prompts[0] + texts[0]
        print(text[shown:], end="", flush=True)
        shown = len(text)
    print("" if shown else prompts[0])
    return DONE
