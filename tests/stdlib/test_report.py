"""Claims, and the command line of an experiment."""

import math
import sys

import pytest

from stdlib.report import Claim, run_as_script


def test_a_claim_holds_within_its_bounds():
    assert Claim.at_least("", 1.0, 1.0).met and not Claim.at_least("", 0.9, 1.0).met
    assert Claim.at_most("", 1.0, 1.0).met and not Claim.at_most("", 1.1, 1.0).met
    assert Claim.between("", 1.0, 0.5, 1.5).met and not Claim.between("", 2.0, 0.5, 1.5).met


def test_nan_meets_no_claim():
    for claim in (Claim.at_least, Claim.at_most):
        assert not claim("", math.nan, 1.0).met
    assert not Claim.between("", math.nan, 0.0, 1.0).met


@pytest.mark.parametrize(("measured", "fails"), [(2.0, False), (0.0, True)])
def test_an_experiment_fails_if_a_claim_is_not_met(measured, fails, monkeypatch, capsys, tmp_path):
    def main(smoke, folder):
        assert smoke and folder == tmp_path
        return [Claim.at_least("nats", measured, 1.0)]

    monkeypatch.setattr(sys, "argv", ["x", "--smoke", "--outputs", str(tmp_path)])
    if fails:
        with pytest.raises(SystemExit):
            run_as_script(main, "A paper")
    else:
        run_as_script(main, "A paper")
    assert ("NO" if fails else "yes") in capsys.readouterr().out
