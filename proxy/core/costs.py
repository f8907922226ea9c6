"""What calls cost in tokens, learnt from those that told: bytes to tokens by model, output by caller too.

Until a model has told, the rules of thumb hold.
"""

from __future__ import annotations

from typing import Final

from proxy.core.quantile import Sizes, bound_of
from proxy.core.recent import Recent

BYTES_PER_TOKEN: Final = 4.0
"""OpenAI's rule of thumb for English ("What are tokens and how to count them"); its own limiter estimates by
characters too. JSON around the text makes it a little high, other scripts make it low."""

DEFAULT_OUTPUT: Final = 340.0
"""Tokens of an answer that nobody bounds: the mean of ShareGPT's is 338 (Kwon et al., "Efficient Memory
Management for Large Language Model Serving with PagedAttention", SOSP 2023, figure 11: 337.99)."""

MOST_MODELS: Final = 512
MOST_CALLERS: Final = 4096
"""Models, and pairs of caller and model, that are remembered: 1 kB each at most, 4 MB in all."""

ENOUGH: Final = 10
"""Answers from which on a quantile of them is believed; below it what the body allows is."""

SHARE: Final = 0.95
"""Of the answers that are to stay within what was reserved for them: what the rest uses beyond it is trued
up, and what is reserved too much keeps others out meanwhile."""

FARTHEST: Final = 4.0
"""One call moves a ratio as if it were no more than so many times off: it may hold what is not text."""

HEAVIEST: Final = 8.0
"""One call weighs as much as so many usual ones at most, however long it is."""

KEPT: Final = 31 / 32
"""Of the weight of what was learnt before, with each call: the last 32 make 63 % of it."""


class _Ratio:
    """Two sums that fade, and one over the other: `over` of this for each of that."""

    __slots__ = ("_calls", "_many", "_of", "over")

    def __init__(self, over: float) -> None:
        self._calls = 0.0
        self._many = 0.0
        self._of = 0.0
        self.over = over

    def learn(self, many: float, of: float) -> None:
        """A call had `many` for `of`; both above 0."""
        told = min(max(many / of, self.over / FARTHEST), self.over * FARTHEST)
        if self._calls:
            of = min(of, HEAVIEST * self._of / self._calls)
        self._calls = self._calls * KEPT + 1.0
        self._many = self._many * KEPT + told * of
        self._of = self._of * KEPT + of
        self.over = self._many / self._of


class _Model:
    """What is known of one model. `tokens`: of the input, for each byte of text; of the output, for each
    piece of a stream that carries some of it."""

    __slots__ = ("by_byte", "by_piece", "outputs")

    def __init__(self) -> None:
        self.by_byte = _Ratio(1.0 / BYTES_PER_TOKEN)
        self.by_piece = _Ratio(1.0)  # OpenAI sends a token a piece, nearly always
        self.outputs = Sizes()


class Costs:
    """All that was learnt. `model` is "" for calls whose model nobody read."""

    __slots__ = ("_callers", "_models")

    def __init__(self) -> None:
        self._models: Recent[str, _Model] = Recent(MOST_MODELS)
        self._callers: Recent[tuple[str, str], Sizes] = Recent(MOST_CALLERS)

    def input_of(self, model: str, text_bytes: int) -> float:
        """The tokens of so many bytes of a request."""
        known = self._models.get(model)
        return text_bytes * (known.by_byte.over if known is not None else 1.0 / BYTES_PER_TOKEN)

    def output_of(self, caller: str, model: str, allowed: int | None) -> float:
        """What to reserve for one answer, of which `allowed` is the caller's own bound."""
        sizes = self._sizes(caller, model)
        if sizes is None:
            return DEFAULT_OUTPUT if allowed is None else float(allowed)
        usual = sizes.quantile(SHARE)
        return usual if allowed is None or usual < allowed else float(allowed)

    def unread_output_of(self, caller: str, model: str, allowed: int | None) -> float:
        """What an answer has had that came and that nobody could read: as many as usual."""
        sizes = self._sizes(caller, model)
        usual = DEFAULT_OUTPUT if sizes is None else sizes.mean
        return usual if allowed is None or usual < allowed else float(allowed)

    def streamed(self, model: str, pieces: float) -> float:
        """The tokens of so many pieces of a streamed answer."""
        known = self._models.get(model)
        return pieces * (known.by_piece.over if known is not None else 1.0)

    def told_input(self, model: str, text_bytes: int, tokens: float) -> None:
        """A request of so many bytes, all of them text, was counted."""
        if text_bytes > 0 and tokens > 0.0:
            self._model(model).by_byte.learn(tokens, text_bytes)

    def told_output(self, caller: str, model: str, tokens: float, pieces: float) -> None:
        """One answer was counted: of `pieces`, where it was streamed."""
        known, bound = self._model(model), bound_of(tokens)
        known.outputs.add(tokens, bound)
        sizes = self._callers.get((model, caller))
        if sizes is None:
            sizes = Sizes()
            self._callers.put((model, caller), sizes)
        sizes.add(tokens, bound)
        if pieces and tokens > 0.0:
            known.by_piece.learn(tokens, pieces)

    def _sizes(self, caller: str, model: str) -> Sizes | None:
        """The caller's own answers where there were enough, else the model's; None: of neither."""
        own = self._callers.get((model, caller))
        if own is not None and own.seen >= ENOUGH:
            return own
        known = self._models.get(model)
        return known.outputs if known is not None and known.outputs.seen >= ENOUGH else None

    def _model(self, model: str) -> _Model:
        known = self._models.get(model)
        if known is None:
            known = _Model()
            self._models.put(model, known)
        return known
