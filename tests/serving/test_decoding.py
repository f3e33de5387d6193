"""Texts that are continued together: each gets what it gets alone, and what generate makes."""

import asyncio
import dataclasses
import gc
import json
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from serving.gateway.backend import SamplingConfig
from serving.gateway.decoding import Decoding, Text, score_token
from serving.gateway.engine import Engine, make_thread
from serving.gateway.local import LocalBackend
from serving.gateway.local_call import local_steps
from serving.gateway.remote import GrpcModel, RemoteBackend
from serving.server.batching import concatenate
from serving.server.config import ServerConfig
from serving.server.errors import RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel, read_padding
from serving.server.service import Service
from tests.serving.conftest import CONTEXT_LENGTH
from tokenmill.contracts.served_model import read_served_model
from tokenmill.cost.memory import kv_cache_bytes

EOS = 3
PROMPTS = [
    [2, 7, 9, 300, 12],
    [2, 45],
    [2],
    [2, *range(10, 40)],
    [2, 200, 201],
    [2, *range(50, 65)],
]
SAMPLINGS = [
    SamplingConfig(8),
    SamplingConfig(12, temperature=1.0, seed=7),
    SamplingConfig(5, temperature=0.7, top_k=30, top_p=0.9, seed=11),
    SamplingConfig(1),
    SamplingConfig(14, temperature=1.3, seed=-5),
]


@pytest.fixture(scope="module")
def steps(exported):
    shape = read_served_model(str(exported.base / "1")).model_shape
    return local_steps(exported.loaded.signatures, shape, 0)


def make_decoding(steps, max_slots=10**6, max_texts=64):
    steps.clear()
    return Decoding(steps, CONTEXT_LENGTH, 340, [0, 1, 2], max_slots, max_texts)


def text_of(prompt, sampling):
    return Text(prompt, sampling, frozenset([EOS]))


@pytest.fixture(scope="module")
def generated(exported):
    """What the signature generate_ids answers."""
    known = {}

    def generate(prompt, sampling):
        key = (tuple(prompt), sampling)
        if key not in known:
            outputs = exported.loaded.signatures["generate_ids"](
                token_ids=tf.constant([prompt[1:]], tf.int32),
                max_new_tokens=tf.constant([sampling.max_new_tokens]),
                truncate_prompt=tf.constant([False]),
                temperature=tf.constant([sampling.temperature]),
                top_k=tf.constant([sampling.top_k]),
                top_p=tf.constant([sampling.top_p]),
                seed=tf.constant([sampling.seed]),
            )
            count = int(outputs["completion_tokens"][0])
            known[key] = (
                outputs["token_ids"].numpy()[0, :count].tolist(),
                outputs["finish_reason"].numpy()[0].decode(),
            )
        return known[key]

    return generate


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(PROMPTS) - 1),
            st.integers(0, len(SAMPLINGS) - 1),
            st.integers(0, 9),
            st.one_of(st.none(), st.integers(0, 9)),
        ),
        min_size=1,
        max_size=7,
    ),
    st.sampled_from([48, 96, 200, 10**6]),
    st.sampled_from([1, 2, 64]),
)
@settings(max_examples=60)
def test_whoever_joins_and_leaves_each_text_is_that_of_generate(
    steps, generated, jobs, max_slots, max_texts
):
    decoding = make_decoding(steps, max_slots, max_texts)
    texts, finished = [], {}
    for prompt, sampling, *_ in jobs:
        texts.append(text_of(PROMPTS[prompt], SAMPLINGS[sampling]))
    for moment in range(200):
        for text, (*_, joins, leaves) in zip(texts, jobs, strict=True):
            if joins == moment:
                decoding.add(text)
            if leaves is not None and joins + leaves == moment:
                text.left = True
        for text, token in decoding.advance():
            assert text not in finished
            if token.finish_reason is not None:
                finished[text] = token.finish_reason
        assert decoding.texts <= max_texts
        if decoding.is_idle and moment > 9:
            break
    assert decoding.is_idle
    for text, (prompt, sampling, _, leaves) in zip(texts, jobs, strict=True):
        expected, reason = generated(PROMPTS[prompt], SAMPLINGS[sampling])
        assert text.generated == expected[: len(text.generated)]
        if leaves is None:
            assert text in finished
        if text in finished:
            assert (text.generated, finished[text]) == (expected, reason)


def test_a_text_that_fits_nowhere_is_known_before(steps):
    decoding = make_decoding(steps, max_slots=47)
    assert not decoding.fits(text_of([2] * 20, SamplingConfig(8)))  # a block is the whole context
    assert make_decoding(steps, 48).fits(text_of([2] * 40, SamplingConfig(8)))


def test_penalties_are_those_of_their_definition(steps):
    """Choose by hand from the logits what penalties leave likeliest."""
    prompt = PROMPTS[0]
    sampling = SamplingConfig(
        10, presence_penalty=1.5, frequency_penalty=0.5, repetition_penalty=1.2, likeliest=20
    )
    text = text_of(prompt, sampling)
    decoding = make_decoding(steps)
    decoding.add(text)
    made = []
    while not decoding.is_idle:
        made += [token for _, token in decoding.advance()]
    bare = steps
    seen = []
    for place, token in enumerate(made):
        bare.clear()
        logits = bare.change([], [[*prompt, *seen]], 48)[0].copy()
        score = score_token(logits, token.score.token_id, 20, 340)
        assert token.score.log_probability == pytest.approx(score.log_probability, abs=1e-5)
        assert [i for i, _ in token.score.likeliest] == [i for i, _ in score.likeliest]
        for i in {*prompt, *seen}:
            logits[i] = logits[i] / 1.2 if logits[i] > 0 else logits[i] * 1.2
        for i in set(seen):
            logits[i] -= 1.5 + 0.5 * seen.count(i)
        logits[:3] = -1e9
        assert token.score.token_id == int(np.argmax(logits)), place
        seen.append(token.score.token_id)
    plain = make_decoding(steps)
    other = text_of(prompt, SamplingConfig(10))
    plain.add(other)
    while not plain.is_idle:
        plain.advance()
    assert other.generated != seen[: len(other.generated)]


def test_equal_logits_are_named_by_their_ids():
    score = score_token(np.array([1, 3, 3, 0, 3, 9], np.float32), 4, 2, 5)
    assert [i for i, _ in score.likeliest] == [1, 2]
    assert score.log_probability == score.likeliest[0][1]


def test_a_step_that_fails_ends_its_texts_and_no_others(steps):
    class Broken:
        def __getattr__(self, name):
            return getattr(steps, name)

        def _fail(self, part):
            if self.fails == part:
                self.fails = None
                raise MemoryError

        def change(self, kept, prompts, slots):
            self._fail("change")
            return steps.change(kept, prompts, slots)

        def step(self, tokens, positions):
            self._fail("step")
            return steps.step(tokens, positions)

    async def main():
        broken = Broken()
        engine = Engine(make_decoding(broken), make_thread(), max_texts=8)

        async def collect():
            return [t.score.token_id async for t in engine.generate([2, 5], SamplingConfig(4), [])]

        for part in ("change", "step"):  # before a text is in the cache, and when it is
            broken.fails = part
            with pytest.raises(RequestError, match="MemoryError"):
                await asyncio.wait_for(collect(), 30)
            assert engine.streams == 0
            assert len(await collect()) == 4

    asyncio.run(main())


def service_of(exported, **options):
    return Service(ServerConfig(str(exported.base), poll_seconds=60, **options))


def test_clients_of_an_engine_get_their_own_tokens_and_those_who_leave_free_their_places(
    exported, loaded_once, generated
):
    async def main():
        service = service_of(exported, max_queued_rows=4, max_streams=3)
        await service.versions.refresh()
        backend = LocalBackend(service)
        async with backend.hold(None) as version:
            assert version.version == 2

            async def collect(prompt, sampling, most=99):
                tokens = []
                stream = version.generate(prompt, sampling)
                async for token in stream:
                    tokens.append(token)
                    if len(tokens) == most:
                        break
                await stream.aclose()
                return tokens

            alone = [await collect(PROMPTS[i], SAMPLINGS[i]) for i in range(5)]
            together = await asyncio.gather(*(collect(PROMPTS[i], SAMPLINGS[i]) for i in range(5)))
            assert together == alone
            await asyncio.gather(*(collect(PROMPTS[5], SAMPLINGS[4], most=2) for _ in range(7)))
            assert version._engine.streams == 0
            jobs = [collect(PROMPTS[5], SAMPLINGS[0]) for _ in range(8)]
            with pytest.raises(RequestError, match="queue is full"):
                await asyncio.gather(*jobs)
            for _ in range(200):
                if version._engine._decoding.is_idle:
                    break
                await asyncio.sleep(0.02)
            assert version._engine._decoding.is_idle
            assert version.control_ids.eos == EOS
            scores = await version.log_probabilities([2, 10, 11, 12, EOS], 3)
            assert scores[0].log_probability is None
            total = sum(score.log_probability for score in scores[1:])
            assert [len(score.likeliest) for score in scores] == [0, 3, 3, 3, 3]
            ids = await version.tokenize(["Returns the sum.", ""])
            assert ids[1] == []
            assert all(isinstance(i, int) for i in ids[0])
            assert len(await version.embed(ids)) == 2
            return total

    total = asyncio.run(main())
    loaded = tf.saved_model.load(str(exported.base / "2"))
    score = loaded.signatures["score_ids"](token_ids=tf.constant([[10, 11, 12]]))
    assert total == pytest.approx(float(score["log_likelihood"][0]), abs=1e-4)


def test_a_version_that_is_unloaded_leaves_nothing(exported, monkeypatch):
    # A fixture of the session may have put a cache in its place.
    monkeypatch.setattr("serving.server.versions.LoadedModel", LoadedModel)

    async def main():
        service = service_of(exported)
        await service.versions.refresh()
        backend = LocalBackend(service)
        async with backend.hold(None) as version:
            async for _ in version.generate([2, 5], SamplingConfig(3)):
                pass
            gone = weakref.ref(version)
        del version
        service.versions._served = type(service.versions._served)({}, None)
        for _ in range(3):
            gc.collect()
        assert gone() is None

    asyncio.run(main())


def test_ids_of_different_lengths_are_filled_up_with_what_is_no_token(tmp_path):
    """A model without a padding token has token 0 in texts."""
    base = tmp_path / "assets.extra"
    base.mkdir()
    for ids, expected in (
        ({"bos": 1, "eos": 2, "unk": 0}, -1),
        ({"<pad>": 0, "<s>": 2, "</s>": 3}, 0),
        ({"pad": 5, "bos": 1, "eos": 2}, 5),
    ):
        (base / "tokenizer.json").write_text(json.dumps({"sha256": "0", "control_ids": ids}))
        padding = read_padding(str(tmp_path))
        assert padding == expected
        joined = concatenate(
            [{"token_ids": np.array([[0]])}, {"token_ids": np.array([[7, 8]])}], padding
        )
        assert joined["token_ids"].tolist() == [[0, padding], [7, 8]]


def test_behind_grpc_the_tokens_are_the_same(server, exported, generated):
    """`server` serves version 2; its model is called by gRPC, its files are read here."""

    async def main():
        config = ServerConfig(str(exported.base), max_streams=16)
        model = GrpcModel(f"127.0.0.1:{server.ports.grpc}", "default", 30)
        backend = RemoteBackend(model, config, ServerMetrics())
        local = service_of(exported)
        await local.versions.refresh()
        async with backend.hold(None) as remote, LocalBackend(local).hold(None) as here:
            assert remote.version == here.version == 2

            async def collect(version, i):
                sampling = dataclasses.replace(SAMPLINGS[i], likeliest=3)
                return [token async for token in version.generate(PROMPTS[i], sampling)]

            answers = await asyncio.gather(*(collect(remote, i) for i in range(5)))
            expected = await asyncio.gather(*(collect(here, i) for i in range(5)))
            for answer, other in zip(answers, expected, strict=True):
                assert [t.score.token_id for t in answer] == [t.score.token_id for t in other]
                assert answer[-1].finish_reason == other[-1].finish_reason
                values = [t.score.log_probability for t in answer]
                assert values == pytest.approx([t.score.log_probability for t in other], abs=1e-5)
            scores = await remote.log_probabilities([2, 10, 11, 12, EOS], 3)
            others = await here.log_probabilities([2, 10, 11, 12, EOS], 3)
            assert [s.token_id for s in scores] == [s.token_id for s in others]
            assert await remote.embed([[5, 6], [7]]) == pytest.approx(
                np.array(await here.embed([[5, 6], [7]])), abs=1e-5
            )
            with pytest.raises(RequestError, match="48 tokens at most"):
                await remote.log_probabilities([2] * 49, 1)
        model.close()
        gone = RemoteBackend(GrpcModel("127.0.0.1:1", "default", 5), config, ServerMetrics())
        with pytest.raises(RequestError, match=r"127\.0\.0\.1:1 answers"):
            async with gone.hold(None):
                pass

    asyncio.run(main())


def test_the_cache_takes_the_bytes_of_the_ledgers_formula(steps, exported):
    shape = read_served_model(str(exported.base / "1")).model_shape
    steps.clear()
    steps.change([], PROMPTS[:3], CONTEXT_LENGTH)
    held = sum(array.nbytes for array in steps._cache.values())
    assert held == kv_cache_bytes(shape, tokens=3 * CONTEXT_LENGTH)
