"""What a paper takes from runs: what they have, and any name as it is."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rscir_lib.apps.commands.paper import BIBLIOGRAPHY, CITED, write_paper
from rscir_lib.runs import latex_table, latex_words


def as_printed(tex):
    """What LaTeX prints of words; fails at a command that is no character, and at characters that it joins."""
    assert not re.search(r"--|''|``|\?`|!`|<<|>>|,,|[\x00-\x1f\x7f-\x9f]", tex)
    tokens = re.findall(r"\\text\w+\{\}|\\[&%$#_{}]|\{\}|[^\\&%$#_{}~^]", tex)
    assert "".join(tokens) == tex
    names = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", "{}": ""}
    return "".join(names.get(token, token[-1]) for token in tokens)


HOSTILE = r"50% off#1_a&b $x$ ~t^2 {c} \end--``q''!`<<,,"
names = st.text(st.one_of(st.sampled_from("\\%#&_$~^{}-`'<>,?! \n"), st.characters(exclude_categories=["Cs"])))


@given(names)
def test_words_for_latex_are_printed_as_they_are(name):
    assert as_printed(latex_words(name)) == re.sub(r"[\0-\x1f\x7f-\x9f]", " ", name)


def write_run(run):
    """A finished run, as much of one as a paper takes."""
    for name, text in {
        "tables/09_facts.csv": ",value\narchive,scenes_1\ndataset,abc\nimages,9\nqueries,4\nprotocol,released\n"
        'encoder,clip\narchitecture,ViT-B-32\nweights,0123456789abcdef99\nprecision,float32\ntemplate,"a photo of {}"\n'
        "version of numpy,numpy 2.4\n",
        "tables/09_map.csv": "method,Avg,lambda\nweicom,50,0.5\nbasic-dagger,40,\nmine,9,\n",
        "tables/09_map.tex": r"\begin{tabular}{l}1\end{tabular}",
        "tables/09_map_rows.csv": "not for a paper",
        "figures/09_methods.pdf": "%PDF",
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text, encoding="utf-8")


def write_hostile_run(folder):
    """Its folder, a figure, its archive and methods have names that are commands to LaTeX; a figure and a table are of
    real files, one taller than a page."""
    run = folder / HOSTILE.replace("/", "")
    write_run(run)
    facts = pd.read_csv(run / "tables" / "09_facts.csv", index_col=0, dtype=str)
    facts.loc[["archive", "protocol", "architecture", "template"], "value"] = HOSTILE
    facts.to_csv(run / "tables" / "09_facts.csv")
    table = pd.DataFrame({HOSTILE: [HOSTILE] * 90}, pd.Index([HOSTILE, "NA", *["x"] * 88], name="method"))
    table.to_csv(run / "tables" / "09_map.csv")
    (run / "tables" / f"09_{HOSTILE}.tex").write_text(latex_table(table), encoding="utf-8")
    (run / "figures" / "09_methods.pdf").unlink()
    figure = Figure()
    figure.subplots()
    figure.savefig(run / "figures" / f"06_gallery_{HOSTILE}.pdf")
    return run


def test_names_that_are_commands_to_latex(tmp_path):
    run = write_hostile_run(tmp_path)
    paper = write_paper([run], tmp_path / "paper").read_text(encoding="utf-8")
    methods = (tmp_path / "paper" / "methods.tex").read_text(encoding="utf-8")
    files = re.findall(r"\\(?:input|includegraphics)\{(.*?)\}", paper)
    assert len(files) == 4  # methods, two tables, a figure
    for file in files:
        assert re.fullmatch(r"[\w./-]+", file)
        assert (tmp_path / "paper" / file).is_file() or file == "methods"
    assert f"\\section*{{{latex_words(run.name)}}}" in paper
    assert f"\\caption{{06\\_gallery\\_{latex_words(HOSTILE)}}}" in paper
    assert f"by {latex_words(HOSTILE)}, NA, x" in methods
    assert f"images of {latex_words(HOSTILE)} (digest" in methods


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine (Debian: texlive-latex-base)")
def test_latex_reads_a_paper_whatever_the_names(tmp_path):
    paper = write_paper([write_hostile_run(tmp_path)], tmp_path / "paper")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", paper.name]
    done = subprocess.run(command, cwd=paper.parent, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "too large" not in done.stdout
    assert "Overfull \\hbox" not in done.stdout.partition("methods.tex)")[2]


def test_a_paper_takes_what_runs_have(tmp_path):
    run = tmp_path / "one_run"
    write_run(run)
    paper = write_paper([run], tmp_path / "paper").read_text(encoding="utf-8")
    assert r"\input{one_run/09_map.tex}" in paper
    assert r"\includegraphics{one_run/09_methods.pdf}" in paper
    assert paper.count(r"\begin{") == paper.count(r"\end{")
    assert sorted(path.name for path in (tmp_path / "paper" / "one_run").iterdir()) == ["09_map.tex", "09_methods.pdf"]
    methods = (tmp_path / "paper" / "methods.tex").read_text(encoding="utf-8")
    assert r"9 images of scenes\_1 (digest abc)" in methods
    assert r"weicom~\cite{psomas2024composed}, basic-dagger~\cite{psomas2025instance}, mine." in methods
    assert r"0123456789abcdef, float32, texts read in ``a photo of \{\}'')" in methods
    assert "numpy 2.4" in methods
    known = set(re.findall(r"@\w+\{(\w+),", BIBLIOGRAPHY.read_text(encoding="utf-8")))
    assert set(CITED.values()) | set(re.findall(r"\\cite\{(\w+)\}", methods)) <= known
    with pytest.raises(FileNotFoundError, match="run notebook 09 there"):
        write_paper([tmp_path], tmp_path / "other")
    with pytest.raises(ValueError, match="two runs of one name"):
        write_paper([run, run], tmp_path / "other")
    (run / "tables" / "09_facts.csv").write_text(",value\narchive,x\n")
    with pytest.raises(ValueError, match=r"09_facts.csv has no '.*run notebook 09 again"):
        write_paper([run], tmp_path / "other")


def test_a_run_that_lacks_what_a_paper_shows_is_named(tmp_path):
    run = tmp_path / "one_run"
    write_run(run)
    (run / "tables" / "09_map.csv").write_text("name,Avg\nweicom,50\n")
    with pytest.raises(ValueError, match=r"09_map.csv has no 'method'.*run notebook 09 again"):
        write_paper([run], tmp_path / "paper")
    for file in (*run.glob("tables/*.tex"), *run.glob("figures/*.pdf")):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"one_run lacks .*tables and figures: run notebook 09 there"):
        write_paper([run], tmp_path / "paper")


def test_the_folder_of_another_run_stays_and_is_said(tmp_path, capsys):
    for name in ("old", "new"):
        write_run(tmp_path / name)
        write_paper([tmp_path / name], tmp_path / "paper")
    assert (tmp_path / "paper" / "old" / "09_map.tex").is_file()
    assert (
        capsys.readouterr().out
        == f"{tmp_path / 'paper'} also holds old, no part of this paper: delete what you don't need\n"
    )
