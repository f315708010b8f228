"""Canonical form: idempotent, comments kept, and the same tree when read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from ppl.syntax import format_text, parse, show
from ppl.testing.programs import programs

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("examples/text/*.ppl"), *ROOT.glob("spec/conformance/*.ppl")])

UGLY = """# top
import   "a.ppl"   # all of it
const K=3
const   L = 4

data x:real[n]=[1,2,
  3] # numbers
model m(x:real[n],k:size)->real{ # head

  # why
  a~normal(0,1)via score(baseline=none)where b # what
  if a>0{let s=1}else{
    # nothing here
    let s=2 } # closed
  plate i in n{}
  param w:simplex[3]~dirichlet(ones(3))


  scan t in n with z=0.0,u=(1,2){next z=z+1 next u=u}
  observe 1.0~normal(a,1)where true factor -a
  let (p,q)=({a,b:-(-2)},[1.5e-7,1e10])
  return(a:real) # last
  # end
}
# bottom
"""

PRETTY = """# top
import "a.ppl"  # all of it

const K = 3
const L = 4

data x: real[n] = [1, 2, 3]  # numbers

model m(x: real[n], k: size) -> real {  # head
  # why
  a ~ normal(0, 1) via score(baseline = none) where b  # what
  if a > 0 {
    let s = 1
  } else {
    # nothing here
    let s = 2
  }  # closed
  plate i in n {}
  param w: simplex[3] ~ dirichlet(ones(3))

  scan t in n with z = 0.0, u = (1, 2) {
    next z = z + 1
    next u = u
  }
  observe 1.0 ~ normal(a, 1) where true
  factor -a
  let (p, q) = ({a, b: --2}, [1.5e-07, 10000000000.0])
  return (a : real)  # last
  # end
}

# bottom
"""


def test_canonical_form():
    assert format_text(UGLY) == PRETTY
    assert format_text(PRETTY) == PRETTY
    assert parse(UGLY) == parse(PRETTY)


def test_long_lines_are_broken_at_commas():
    long = format_text(f"const c = f({', '.join(f'argument_{i}' for i in range(12))})")
    assert max(map(len, long.split("\n"))) <= 88
    assert format_text(long) == long


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_keep_their_tree(path):
    text = path.read_text()
    assert parse(format_text(text)) == parse(text)
    assert format_text(format_text(text)) == format_text(text)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_keep_their_comments(path):
    text = path.read_text()
    comments = lambda t: sorted("#" + l.split("#", 1)[1] for l in t.split("\n") if "#" in l)
    assert comments(format_text(text)) == comments(text)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(programs())
def test_random_programs_print_and_parse(file):
    assert parse(show(file)) == file
