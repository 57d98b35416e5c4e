import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from hypercl.report.screen import Screen

ROOT = Path(__file__).parent.parent.parent


def make_screen(terminal, **options):
    output, log = io.StringIO(), []
    console = Console(file=output, force_terminal=terminal, highlight=False, width=80)
    return Screen(log.append, console=console, **options), output, log


def use(screen):
    screen.say("a [bold] line")
    screen.debug("a detail")
    screen.start_progress("task 1/2", 100)
    screen.show_progress(10, "task loss 0.5", milestone=False)
    screen.show_progress(50, "task loss 0.2", milestone=True)
    screen.stop_progress()
    screen.table("accuracy (%)", ["after", "1", "mean"], [["1", "99.50", "99.50"]])


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


def test_long_lines_are_not_broken():
    screen, output, _ = make_screen(terminal=False)
    screen.say("x" * 300)
    assert output.getvalue() == "x" * 300 + "\n"


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
