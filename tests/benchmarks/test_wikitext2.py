"""The table of WikiText-2 sets every network beside its explicit peer, and says what memory is worth."""

from benchmarks import jacobian_penalty, wikitext2


def entry(recipe: str, perplexity: float, statuses: dict[str, int]) -> dict:
    return {
        "recipe": recipe,
        "parameters": 1_000_000,
        "steps": 10,
        "tokens": 10_240,
        "train_seconds": 1.0,
        "train_cpu_seconds": 1.0,
        "val_perplexity": perplexity,
        "test_perplexity": perplexity,
        "statuses": statuses,
        "train_evaluations": [1.0, 1.0],
    }


def test_a_line_a_network_and_its_ratio_to_the_peer():
    runs = []
    for deq, explicit in wikitext2.PAIRS:
        runs += [entry(deq, 99.0, {"CONVERGED": 3}), entry(explicit, 110.0, {})]
    content = {"runs": runs, "test_perplexity_by_memory": {"0": 120.0, "128": 99.0}}
    lines = wikitext2.table(content).splitlines()
    assert len(lines) == 2 + 4 and lines[2].rstrip(" |").endswith("0.900") and lines[3].rstrip(" |").endswith("1.000")
    assert "1 + 1" in lines[2] and "1 + 1" not in lines[3]
    assert "120.0 with 0, 99.0 with 128" in wikitext2.verdict(content)


def test_growth_of_perplexity_is_told_for_both_runs():
    run = {
        "perplexities": {str(budget): 5.0 for budget in jacobian_penalty.BUDGETS},
        "growth_at_half": 0.015,
        "spectral_radius": 0.8,
        "mean_evaluations": 9.0,
        "penalty_share_of_step": 0.07,
    }
    lines = jacobian_penalty.table({"runs": [{"penalty": name, **run} for name in jacobian_penalty.RUNS]}).splitlines()
    assert len(lines) == 4 and "+1.5%" in lines[2] and "7.0%" in lines[3]
