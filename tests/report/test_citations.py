"""Papers get numbers, and each paper one."""

from wardround.report.citations import Bibliography, cited

COX = "Cox DR. Regression models and life-tables. J R Stat Soc B 1972; 34(2): 187-220."
EFRON = "Efron B. The efficiency of Cox's likelihood function for censored data. J Am Stat Assoc 1977; 72: 557-565."
VAN = "van Houwelingen HC, Arends LR. Advanced methods in meta-analysis. Stat Med 2002; 21: 589-624."
OTHER = "van der Laan MJ. Another paper of that year. Somewhere 2002; 1: 1-2."


def test_a_citation_becomes_the_papers_number():
    papers = Bibliography()
    pieces = cited("Ties as usual (Efron 1977), else (Cox, 1972; Efron 1977).", (COX, EFRON), papers)
    assert pieces == ("Ties as usual", (1,), ", else", (1, 2), ".")
    assert papers.papers[1] == COX.replace("187-220", "187–220")  # noqa: RUF001


def test_words_beside_a_citation_stay():
    assert cited("As usual (by rank; Cox 1972).", (COX,), Bibliography()) == ("As usual (by rank)", (1,), ".")


def test_what_fits_no_paper_stays_as_it_is():
    papers = Bibliography()
    text = "In two hospitals (of 1972) and (Breslow 1974; Cox 1972) (n = 1999)."
    assert cited(text, (COX,), papers) == (text, (1,))
    assert papers.papers == [cited_once(COX)]


def cited_once(reference):
    papers = Bibliography()
    papers.number_of(reference)
    return papers.papers[0]


def test_papers_that_a_text_does_not_cite_are_cited_at_its_end():
    assert cited("Words.", (COX, EFRON), Bibliography()) == ("Words.", (1, 2))
    assert cited("Words.", (), Bibliography()) == ("Words.",)


def test_names_of_several_words():
    papers = Bibliography()
    assert cited("(van der Laan 2002) (van Houwelingen and Arends 2002)", (VAN, OTHER), papers)[1::2] == ((1,), (2,))
    assert papers.papers[0].startswith("van der Laan")


def test_a_paper_is_listed_once():
    papers = Bibliography()
    assert papers.number_of(COX) == 1
    assert papers.number_of("Cox (1972), Regression models and life tables, JRSS B 34, 187.") == 1
    assert papers.number_of("Cox DR, Snell EJ. A general definition of residuals. 1968.") == 2
    assert papers.number_of("Cox C. Something else entirely about waiting. Lancet 1972.") == 3
