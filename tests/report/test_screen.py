import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hypercl.report.screen import Screen, spoken_time

ROOT = Path(__file__).parent.parent.parent


def make_screen(terminal, width=80, **options):
    output, log = io.StringIO(), []
    console = Console(file=output, force_terminal=terminal, highlight=False, width=width)
    return Screen(log.append, console=console, **options), output, log


def use(screen):
    screen.say("a [bold] line")
    screen.debug("a detail")
    screen.start_progress("task 1/2", 100)
    screen.show_progress(10, "task loss 0.5", milestone=False)
    screen.show_progress(50, "task loss 0.2", milestone=True)
    screen.stop_progress()
    screen.table("accuracy (%)", ["after", "1", "mean"], [["1", "99.50", "99.50"]])


@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_the_users_are_shown_as_they_are(terminal):
    """rich has pictures for words between colons, and styles for those in brackets."""
    screen, output, _ = make_screen(terminal)
    name = "my.py:two: [red]"
    screen.say(name)
    screen.start_progress(name, 100)
    screen.show_progress(100, "loss 0.5", milestone=True)
    screen.stop_progress()
    assert output.getvalue().count(name) >= 2


def test_piped_output_is_plain_lines():
    screen, output, _ = make_screen(terminal=False)
    use(screen)
    assert output.getvalue().splitlines() == [
        "a [bold] line",
        "a detail",
        "task 1/2: step 50/100, task loss 0.2, 0:00:00 left",
        "accuracy (%)",
        "  after      1   mean",
        "  1      99.50  99.50",
    ]


def test_debug_lines_can_be_hidden_but_are_logged():
    screen, output, log = make_screen(terminal=False, show_debug=False)
    use(screen)
    assert "a detail" not in output.getvalue()
    assert "step 50" not in output.getvalue()
    assert "a [bold] line" in output.getvalue()
    levels = [line.split()[2] for line in log]
    assert levels == ["INFO", "DEBUG", "DEBUG", "INFO", "INFO", "INFO"]
    assert log[2].endswith("step 50/100, task loss 0.2, 0:00:00 left")


def test_a_terminal_gets_a_live_bar_and_a_table():
    screen, output, log = make_screen(terminal=True)
    use(screen)
    text = output.getvalue()
    assert "\x1b[" in text
    assert "50/100" in text
    assert "━" in text
    assert "─" in text
    assert any("step 50/100" in line for line in log)


def test_times_are_spoken_in_a_unit_that_suits_them():
    seconds = [0.2, 8.4, 150, 5990, 6010, 90000]
    assert [spoken_time(each) for each in seconds] == [
        "1 second", "8 seconds", "2.5 minutes", "99.8 minutes", "1.7 hours", "25.0 hours"
    ]  # fmt: skip


def test_a_reader_that_has_gone_does_not_end_the_run():
    code = (
        "from hypercl.report.screen import Screen\n"
        "screen = Screen(lambda line: None)\n"
        "for _ in range(20000): screen.say('a line that nobody reads')\n"
        "import sys; print('alive', file=sys.stderr)\n"
    )
    shell = f'{sys.executable} -c "$CODE" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", shell],
        env={**os.environ, "CODE": code},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "a line that nobody reads\n"
    assert done.stderr == "alive\n"


def test_long_words_are_not_broken_and_long_sentences_between_words():
    screen, output, log = make_screen(terminal=False)
    screen.say("x" * 300)
    sentence = f"{'word ' * 14}12.34 ± 0.56 % (n = 5)"
    screen.say(sentence)
    assert output.getvalue().splitlines() == [
        "x" * 300,
        ("word " * 14).strip(),
        "  12.34 ± 0.56 % (n = 5)",
    ]
    assert log[1].endswith(sentence)  # whole


def test_a_command_can_be_copied_from_the_screen():
    screen, output, log = make_screen(terminal=False)
    screen.say_command("continue with", "python run.py --resume")
    long = ["python", "run.py", *(f"--an_option_of_some_length={i}" for i in range(4)), "a b"]
    screen.say_command("continue with", shlex.join(long))
    first, second, *lines = output.getvalue().splitlines()
    assert (first, second) == ("continue with: python run.py --resume", "continue with:")
    assert max(map(len, lines)) <= 80
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == long
    assert log[-1].endswith(f"continue with: {shlex.join(long)}")


def test_a_wide_table_has_its_columns_in_blocks():
    screen, output, _ = make_screen(terminal=False)
    header = ["after", *(str(k) for k in range(20))]
    rows = [["1", "11.11", *[""] * 19], ["2", *["22.22"] * 20]]
    assert not screen.fits([header, *rows])
    screen.table("accuracy", header, rows)
    _, *lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["after", "1", "2", "after", "2"]
    assert " ".join(lines).count("22.22") == 20


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_bar_leaves_out_what_it_has_no_room_for_and_cuts_nothing(width):
    screen, output, log = make_screen(terminal=True, width=width)
    screen.start_progress("task 10/10", 1001)
    text = "task loss 0.0126, penalty 0.7588, validation 100.0 %"
    screen.show_progress(1000, text, milestone=True)
    screen.stop_progress()
    shown = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert "…" not in shown
    assert "1000/1001" in shown
    assert ("task loss 0.0126" in shown) == (width > 40)
    assert ("validation 100.0 %" in shown) == (width == 200)
    assert text in log[0]


def test_a_full_disk_behind_the_output_does_not_end_a_run():
    code = (
        "from hypercl.report.screen import Screen\n"
        "screen = Screen(lambda line: None)\n"
        "for i in range(3): screen.say(str(i))\n"
        "open('/dev/stderr', 'w').write('done')"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert (done.returncode, done.stderr) == (0, b"done")
