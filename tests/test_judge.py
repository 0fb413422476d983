"""The judge: what its ratings add up to, and that none is lost, given twice or invented, whatever its server does."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replication.evaluate.judged.asking import REPLY, Errand, Judge, ask, errand, prices, this_judge
from replication.evaluate.judged.judge import ORDERS, Pair, rating, totals, verdict
from replication.evaluate.judged.ratings import Rating, Ratings

ROOT = Path(__file__).parent.parent
COUNT = 1000
SECONDS = 0.8  # until the client gives a reply up
MALFORMED = (
    "",
    "8",
    "I would say 8 7",
    "11 3",
    "0 5",
    "8/10 7/10",
    "nan nan",
    "8 7 6",
    "-3 4",
    "eight seven",
    "8.5.1 2",
)


def true_rating(prompt: str) -> tuple[int, int]:
    digest = hashlib.sha256(prompt.encode()).digest()
    return 1 + digest[0] % 10, 1 + digest[1] % 10


class Hostile(ThreadingHTTPServer):
    """Speaks OpenAI's protocol on 127.0.0.1; of each prompt's n-th request it decides by a hash what to do."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, malformed: float, late: float, broken: float, most: int = 10**9) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.shares, self.most = (malformed, late, broken), most
        self.asked: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.lock = threading.Lock()

    def fate(self, prompt: str) -> tuple[str, int]:
        with self.lock:
            turn = self.asked[prompt]
            self.asked[prompt] += 1
            number = int.from_bytes(hashlib.sha256(f"{prompt}/{turn}".encode()).digest()[:6], "big")
            chance, kinds = number / 2**48, ("malformed", "late", "broken")
            reach = 0.0
            found = "proper"
            for kind, share in zip(kinds, self.shares, strict=True):
                if reach <= chance < reach + share:
                    found = kind
                reach += share
            if sum(self.fates.values()) >= self.most:
                found = "dead"
            self.fates[found] += 1
        return found, number

    def handle_error(self, request: Any, address: Any) -> None:
        pass  # clients that gave up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hostile

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/chat/completions" and body["max_tokens"] == REPLY
        prompt = body["messages"][0]["content"]
        fate, number = self.server.fate(prompt)
        first, second = true_rating(prompt)
        match fate:
            case "proper":
                self.say(f"{first} {second}")
            case "malformed":
                self.say(MALFORMED[number % len(MALFORMED)])
            case "late":
                time.sleep(2 * SECONDS)
                self.say(f"{first} {second}")
            case "broken" if number % 2:
                self.send(429, b'{"error": {"message": "slow down"}}')
            case _:
                self.connection.close()

    def say(self, text: str) -> None:
        completion = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
        }  # fmt: skip
        self.send(200, json.dumps(completion).encode())

    def send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(server: Hostile) -> Iterator[Judge]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Judge(f"http://127.0.0.1:{server.server_port}/v1", "m", seconds=SECONDS, retries=6)
    finally:
        server.shutdown()
        server.server_close()


def simulated(count: int) -> dict[str, str]:
    return {f"key {number}": f"Rate answer {number}." for number in range(count)}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ASKING = """
import sys
from pathlib import Path
from replication.evaluate.judged.asking import Judge, ask
from replication.evaluate.judged.ratings import Ratings
url, place, count, seconds = sys.argv[1:]
with Ratings(Path(place)) as log:
    ask(Judge(url, "m", seconds=float(seconds), retries=6),
        {f"key {n}": f"Rate answer {n}." for n in range(int(count))}, log)
"""


def test_a_thousand_ratings_each_once_through_all_that_goes_wrong(tmp_path: Path) -> None:
    """10 % malformed, 5 % late, 3 % broken off or refused, and the process killed at a random moment."""
    path, prompts = tmp_path / "ratings.jsonl", simulated(COUNT)
    server = Hostile(malformed=0.10, late=0.05, broken=0.03)
    moment = 100 + int.from_bytes(os.urandom(2), "big") % 700
    with serving(server) as judge:
        command = [sys.executable, "-c", ASKING, judge.url, str(path), str(COUNT), str(SECONDS)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n") >= moment:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait()
        assert process.returncode == -signal.SIGKILL, f"moment {moment}: it was not killed"
        with open(path, "a") as file:
            file.write('{"key": "key 3", "sco')  # as if killed in the middle of a line, which the system seldom does
        with Ratings(path) as log:
            asked = {key: server.asked[prompts[key]] for key in log.found}
            ask(judge, prompts, log)
            assert len(log.found) == COUNT
    found = lines(path)
    assert moment <= len(asked) < COUNT
    assert Counter(row["key"] for row in found) == Counter(prompts.keys())  # each, once
    assert all(tuple(row["scores"]) == true_rating(prompts[row["key"]]) for row in found)  # as the server said
    assert server.fates["malformed"] > 50 and server.fates["late"] > 20 and server.fates["broken"] > 10
    assert {key: server.asked[prompts[key]] for key in asked} == asked  # what was rated was not asked for again
    wasted = sum(row["tokens_in"] for row in found) - 10 * COUNT
    assert wasted == 10 * sum(len(row["replies"]) - 1 for row in found) > 0


def test_a_server_that_dies_halfway_loses_nothing(tmp_path: Path) -> None:
    path, prompts = tmp_path / "ratings.jsonl", simulated(60)
    with serving(Hostile(0, 0, 0, most=25)) as judge, Ratings(path) as log:
        with pytest.raises(ValueError, match=r"25 ratings are in .*ratings.jsonl; the same command goes on") as error:
            ask(replace(judge, retries=1), prompts, log)
        assert "\n" not in str(error.value)
    assert len(lines(path)) == 25
    server = Hostile(0, 0, 0)
    with serving(server) as judge, Ratings(path) as log:
        ask(judge, prompts, log)
        ask(judge, prompts, log)  # nothing is left to ask
    assert server.asked.total() == 35 and len({row["key"] for row in lines(path)}) == 60


def test_a_judge_that_cannot_rate_is_written_down_as_that(tmp_path: Path) -> None:
    with serving(Hostile(1.0, 0, 0)) as judge, Ratings(tmp_path / "r.jsonl") as log:
        ask(judge, simulated(5), log)
        assert [each.scores for each in log.found.values()] == [None] * 5
        assert {len(each.replies) for each in log.found.values()} == {judge.replies}


def test_what_is_no_judge_leaves_no_ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [b"<html>", b"{}", b"null", b"{not json", b'{"choices": [{"message": {"content": ["8 7"]}}]}']

    def another_page(handler: Handler, text: str) -> None:
        handler.send(200, pages[int.from_bytes(os.urandom(1), "big") % len(pages)])

    monkeypatch.setattr(Handler, "say", another_page)
    with serving(Hostile(0, 0, 0)) as judge, Ratings(tmp_path / "r.jsonl") as log:
        with pytest.raises(ValueError, match="no chat completion. 0 ratings are in"):
            ask(judge, simulated(3), log)
        assert (tmp_path / "r.jsonl").read_bytes() == b""


def test_only_a_line_of_two_numbers_from_1_to_10_is_a_rating() -> None:
    good = {"8 7": (8, 7), "10 1": (10, 1), "7.5, 8": (7.5, 8), " 3,4 \nsince both": (3, 4), "1 1.": (1, 1)}
    assert {text: rating(text) for text in good} == good
    assert [rating(text) for text in MALFORMED] == [None] * len(MALFORMED)


def pair(task: str, seed: int, number: int) -> Pair:
    return Pair(task, seed, number, "Say it.", "the truth", f"answer {seed}")


def test_totals_equal_an_example_by_hand() -> None:
    """Two seeds of dolly with two questions, one seed of vicuna with one."""
    scores = [
        # (truth, answer) with the truth first, (answer, truth) with the answer first
        (pair("dolly", 0, 0), (8, 4), (6, 8)),
        (pair("dolly", 0, 1), (10, 5), (5, 10)),
        (pair("dolly", 1, 0), (8, 7), (8, 7)),
        (pair("dolly", 1, 1), (9, 9), (9, 9)),
        (pair("vicuna", 0, 0), (4, 2), (1, 8)),
    ]
    found = totals((each, verdict({ORDERS[0]: first, ORDERS[1]: second})) for each, first, second in scores)
    seed_0, seed_1 = 100 * (4 + 6 + 5 + 5) / (8 + 8 + 10 + 10), 100 * (7 + 8 + 9 + 9) / (8 + 7 + 9 + 9)
    assert found["dolly"] == pytest.approx((seed_0 + seed_1) / 2) and found["dolly"] == pytest.approx(77.7777778)
    assert found["dolly_sd"] == pytest.approx(abs(seed_1 - seed_0) / 2**0.5)
    assert found["vicuna"] == pytest.approx(100 * (2 + 1) / (4 + 8)) and "vicuna_sd" not in found
    # first minus second, in both orders: (4 - 2), (5 - 5), (1 + 1), (0 + 0), (2 - 7), each by two, mean of five
    assert found["position_bias"] == pytest.approx((2 + 0 + 2 + 0 - 5) / 2 / 5)
    assert found["flipped"] == pytest.approx(1 / 5)  # the third: ahead whenever first


def test_a_pair_is_shown_in_both_orders_and_known_by_its_words() -> None:
    told = pair("dolly", 0, 0)
    first, second = (told.prompt(order) for order in ORDERS)
    assert first.index("the truth") < first.index("answer 0") and second.index("answer 0") < second.index("the truth")
    keys = {each.key(order, model) for each in (told, pair("dolly", 1, 0), replace(told, answer="other"))
            for order in ORDERS for model in ("a", "b")}  # fmt: skip
    assert len(keys) == 12 and told.key(ORDERS[0], "a") in keys


def test_the_log_is_for_one_process_and_refuses_damage(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    with Ratings(path) as log:
        log.add(Rating("a", (8.0, 7.0), ["8 7"], 10, 3))
        log.add(Rating("b", None, ["?"] * 6, 60, 6))
        with pytest.raises(ValueError, match="Another process is writing"):
            Ratings(path)
    with Ratings(path) as log:
        assert log.found["a"] == Rating("a", (8.0, 7.0), ["8 7"], 10, 3) and log.found["b"].scores is None
    path.write_text('{"key": 3}\n' + path.read_text())
    with pytest.raises(ValueError, match="line 1 is damaged"):
        Ratings(path)


def test_the_cost_is_said_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {f"{n}": "x" * 400 for n in range(1000)}
    with Ratings(tmp_path / "r.jsonl") as log:
        log.add(Rating("7", (1.0, 1.0), ["1 1"], 1, 1))
        left = errand(prompts, log)
        assert left.cost(Judge("", "big-judge", prices=(0.9, 2.5))) == (
            "big-judge: 999 of 1,000 ratings to ask for, about 99,900 tokens to read and at most 15,984 to write: "
            "about $0.13"
        )
        assert left + Errand(1, 2, 3) == Errand(1000, 1002, 399_603)
        with pytest.raises(ValueError, match="The judge at http://127.0.0.1:9/v1 failed: Connection error"):
            ask(Judge("http://127.0.0.1:9/v1", "big-judge", retries=0), prompts, log)
    assert "999 of 1,000 ratings to ask for" in capsys.readouterr().out


def test_a_judge_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUDGE_URL", "JUDGE_MODEL", "JUDGE_PRICE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="JUDGE_URL=<its address"):
        this_judge()
    monkeypatch.setenv("JUDGE_URL", "http://127.0.0.1:8000/v1")
    monkeypatch.setenv("JUDGE_MODEL", "m")
    assert this_judge() == Judge("http://127.0.0.1:8000/v1", "m")
    assert prices("0.9, 2.5") == (0.9, 2.5) and prices("") is None
    with pytest.raises(ValueError, match="JUDGE_PRICE is 'cheap'"):
        prices("cheap")
