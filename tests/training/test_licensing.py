"""The licence line of a checkpoint."""

from spatialnet_training.loop.licensing import KNOWN_MADE_OF, licence, with_known

CUBESATS = "frames of CubeSats (MIT, C. T. Doloriel 2021)"


def test_each_term_stands_once_over_several_runs() -> None:
    first = licence("Apache-2.0", ["EuroSAT (MIT)", "AID (for research)", ""])
    assert first == "Apache-2.0; trained on EuroSAT (MIT), AID (for research)"
    known = with_known(first, ["NWPU (for research)", CUBESATS])
    assert known == f"{first}{KNOWN_MADE_OF}NWPU (for research), {CUBESATS}"
    again = licence("Apache-2.0", ["EuroSAT (MIT)", "AID (for research)"], known)
    assert again == known
    assert with_known(again, ["NWPU (for research)", CUBESATS]) == known


def test_a_term_of_several_names_is_recognised_after_a_second_run() -> None:
    terms = ["HLS, ESA WorldCover (CC BY 4.0, attribution)"]
    assert licence("MIT", terms, licence("MIT", terms)) == licence("MIT", terms)


def test_lines_that_repeat_terms_are_mended() -> None:
    line = f"MIT; trained on AID (for research){KNOWN_MADE_OF}{CUBESATS}{KNOWN_MADE_OF}{CUBESATS}"
    assert with_known(line, [CUBESATS]) == f"MIT; trained on AID (for research){KNOWN_MADE_OF}{CUBESATS}"
    assert licence("MIT", ["AID (for research)"], line) == with_known(line, [])
