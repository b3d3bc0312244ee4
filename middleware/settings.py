"""The settings of the middleware in five groups, each checked where it is made."""

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypedDict, TypeVar

from msgspec import Struct, structs

from ducto_redis.deprecation import warn_renamed
from ducto_redis.errors import ConfigError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.metrics import MAX_COUNT
from ducto_redis.middleware.estimates import CountTokens, Estimates
from ducto_redis.middleware.holds.learned import LearnedHolds
from ducto_redis.middleware.stored_answers import StoredAnswers
from ducto_redis.money import Amount, to_micro

OnUnavailable: TypeAlias = Literal["refuse", "allow"]
OnDisconnect: TypeAlias = Literal["cut", "drain"]
HiddenReasoning: TypeAlias = Literal["drain", "hold"]
UnknownRoutes: TypeAlias = Literal["refuse", "pass"]
HoldStrategy: TypeAlias = Literal["worst_case", "incremental"]
OnShort: TypeAlias = Literal["refuse", "clamp"]
OnRepeat: TypeAlias = Literal["off", "conflict", "wait"]


class Holds(Struct, frozen=True, kw_only=True):
    """The credits that are held for a request while it runs.

    Attributes:
        strategy: what is held for a stream. "worst_case": everything that it could cost. "incremental": its prompt and
            a step of output, then more as it runs; it is ended where the account can pay no more.
        step_tokens: output tokens of a step.
        learned: hold what answers of the same route and model really use, in place of the worst case; True, or a
            `LearnedHolds` that says how careful that is.
        on_short: what becomes of a request that its account can't pay whole. "refuse" it, or "clamp": lower its limit
            on output to what the account can pay.
        min_output_tokens: the lowest limit that a request is lowered to; with less it is refused.
        ttl_seconds: how long a hold outlives a process that was killed. While a request runs it is renewed.
        background_ttl_seconds: how long the hold of a background job stays, until a later answer shows it finished.
        on_unavailable: "refuse" (503) while the engine is away, or "allow": let pass, and charge once it is back.
        grace: credits, with on_unavailable="allow": the most that requests may cost together which this process has let
            pass and the engine has not charged yet. More is refused.

    Raises:
        ConfigError: where a setting is wrong. (InvalidAmountError: the grace.)
    """

    strategy: HoldStrategy = "worst_case"
    step_tokens: int = 256
    learned: bool | LearnedHolds = False
    on_short: OnShort = "refuse"
    min_output_tokens: int = 16
    ttl_seconds: float = 120
    background_ttl_seconds: float = 3600
    on_unavailable: OnUnavailable = "refuse"
    grace: Amount | None = None

    def __post_init__(self) -> None:
        _check_choice("strategy of holds", self.strategy, "worst_case", "incremental")
        _check_choice("on_short", self.on_short, "refuse", "clamp")
        _check_choice("on_unavailable", self.on_unavailable, "refuse", "allow")
        for name, tokens in (("step_tokens", self.step_tokens), ("min_output_tokens", self.min_output_tokens)):
            if type(tokens) is not int or not 1 <= tokens <= MAX_COUNT:
                raise ConfigError(f"{name} must be a number of tokens, 1 or more, not {tokens!r}")
        learned: object = self.learned
        if not isinstance(learned, bool | LearnedHolds):
            raise ConfigError(f"learned must be True, False or LearnedHolds(...), not {learned!r}")
        if (self.on_unavailable == "allow") != (self.grace is not None):
            raise ConfigError("grace (credits) and on_unavailable='allow' go together")
        if self.grace is not None:
            to_micro(self.grace)
        ttl_to_ms(self.ttl_seconds)
        ttl_to_ms(self.background_ttl_seconds)


class Disconnects(Struct, frozen=True, kw_only=True):
    """The end of an answer whose client left.

    Attributes:
        on_disconnect: "cut": the application is told, and what it delivered is charged. "drain": it is not told and
            runs to its end, so that the true cost is charged.
        hidden_reasoning: the same where the model may have reasoned unseen, so that what was delivered does not say
            what it cost. "drain": as above, and where that does not give the usage, the hold is charged. "hold": it is
            charged at once.
        drain_seconds: how long an application whose client left may go on before it is told.

    Raises:
        ConfigError: where a setting is wrong.
    """

    on_disconnect: OnDisconnect = "cut"
    hidden_reasoning: HiddenReasoning = "drain"
    drain_seconds: float = 60

    def __post_init__(self) -> None:
        _check_choice("on_disconnect", self.on_disconnect, "cut", "drain")
        _check_choice("hidden_reasoning", self.hidden_reasoning, "drain", "hold")
        seconds: object = self.drain_seconds
        if type(seconds) not in (int, float) or not 0 < self.drain_seconds < float("inf"):
            raise ConfigError(f"drain_seconds must be a number of seconds above 0, not {seconds!r}")


class IdempotencyKeys(Struct, frozen=True, kw_only=True):
    """The repeats of a request, told by its Idempotency-Key.

    Attributes:
        on_repeat: what becomes of a request whose key another one had. "off": keys are not looked at. "wait": it waits
            while the first runs; "conflict": it is refused at once. Once the first has ended, it gets the stored
            answer, or, without one, is refused.
        wait_seconds: how long it waits, before it is refused after all.
        stored_answers: how answers are kept to be given again; None: they are not.

    Raises:
        ConfigError: where a setting is wrong.
    """

    on_repeat: OnRepeat = "off"
    wait_seconds: float = 30
    stored_answers: StoredAnswers | None = None

    def __post_init__(self) -> None:
        _check_choice("on_repeat", self.on_repeat, "off", "conflict", "wait")
        ttl_to_ms(self.wait_seconds)
        if not isinstance(self.stored_answers, StoredAnswers | None):
            raise ConfigError(f"stored_answers must be a StoredAnswers, not a {type(self.stored_answers).__name__}")
        if self.stored_answers is not None and self.on_repeat == "off":
            raise ConfigError("stored_answers are for repeats, which on_repeat='conflict' or 'wait' recognises")


class MeteredRoutes(Struct, frozen=True, kw_only=True):
    """The requests that are metered, and the sizes up to which they are.

    Attributes:
        prefixes: paths such as "/v1" under which every request is metered: `unknown_routes` says what becomes of one
            that no recogniser knows.
        unknown_routes: "refuse" (404) such a request, or let it "pass", which is logged and counted.
        body_limit: the largest request body, in bytes.
        hold_json_up_to: the size in bytes up to which a JSON answer is held back until it is charged, so that its
            headers can say what it cost.

    Raises:
        ConfigError: where a setting is wrong.
    """

    prefixes: tuple[str, ...] = ()
    unknown_routes: UnknownRoutes = "refuse"
    body_limit: int = 16 * 2**20
    hold_json_up_to: int = 2**20

    def __post_init__(self) -> None:
        _check_choice("unknown_routes", self.unknown_routes, "refuse", "pass")
        for name, value in (("body_limit", self.body_limit), ("hold_json_up_to", self.hold_json_up_to)):
            if type(value) is not int or value < 0:
                raise ConfigError(f"{name} must be a number of bytes, not {value!r}")
        prefixes: object = self.prefixes
        if isinstance(prefixes, str) or not all(
            isinstance(prefix, str) and prefix.startswith("/") for prefix in self.prefixes
        ):
            raise ConfigError(f"prefixes are paths such as ('/v1',), not {prefixes!r}")


class Upstream(Struct, frozen=True, kw_only=True):
    """The models behind the application: how many tokens they may give, and how tokens are counted.

    Attributes:
        default_max_tokens: output tokens that are held for a request that sets no limit.
        max_tokens_ceiling: output tokens that no model here exceeds, so that more are never held.
        count_tokens: `count_tokens(model, text)`, a tokeniser. Without it a hold assumes a token per UTF-8 byte.

    Raises:
        ConfigError: where a setting is wrong.
    """

    default_max_tokens: int = 4096
    max_tokens_ceiling: int | None = None
    count_tokens: CountTokens | None = None

    def __post_init__(self) -> None:
        self.estimates()

    def estimates(self) -> Estimates:
        """Return what requests are estimated with."""
        return Estimates(self.default_max_tokens, self.max_tokens_ceiling, self.count_tokens)


Group = TypeVar("Group", Holds, Disconnects, IdempotencyKeys, MeteredRoutes, Upstream)


class FlatSettings(TypedDict, total=False):
    """Settings given to the middleware one by one, as before there were groups."""

    default_max_tokens: int
    max_tokens_ceiling: int | None
    count_tokens: CountTokens | None
    body_limit: int
    hold_json_up_to: int
    metered_prefixes: tuple[str, ...]
    unknown_routes: UnknownRoutes
    on_unavailable: OnUnavailable
    grace: Amount | None
    ttl_seconds: float
    background_ttl_seconds: float
    hold: HoldStrategy
    hold_step_tokens: int
    on_short: OnShort
    min_output_tokens: int
    learned_holds: bool | LearnedHolds
    on_disconnect: OnDisconnect
    hidden_reasoning: HiddenReasoning
    drain_seconds: float
    idempotency_wait_seconds: float
    stored_answers: StoredAnswers | None


# The group's keyword, and the field, of each single setting.
_FLAT = {
    "default_max_tokens": ("upstream", "default_max_tokens"),
    "max_tokens_ceiling": ("upstream", "max_tokens_ceiling"),
    "count_tokens": ("upstream", "count_tokens"),
    "body_limit": ("metered", "body_limit"),
    "hold_json_up_to": ("metered", "hold_json_up_to"),
    "metered_prefixes": ("metered", "prefixes"),
    "unknown_routes": ("metered", "unknown_routes"),
    "on_unavailable": ("holds", "on_unavailable"),
    "grace": ("holds", "grace"),
    "ttl_seconds": ("holds", "ttl_seconds"),
    "background_ttl_seconds": ("holds", "background_ttl_seconds"),
    "hold": ("holds", "strategy"),
    "hold_step_tokens": ("holds", "step_tokens"),
    "on_short": ("holds", "on_short"),
    "min_output_tokens": ("holds", "min_output_tokens"),
    "learned_holds": ("holds", "learned"),
    "on_disconnect": ("disconnects", "on_disconnect"),
    "hidden_reasoning": ("disconnects", "hidden_reasoning"),
    "drain_seconds": ("disconnects", "drain_seconds"),
    "idempotency": ("idempotency", "on_repeat"),
    "idempotency_wait_seconds": ("idempotency", "wait_seconds"),
    "stored_answers": ("idempotency", "stored_answers"),
}


_KEYWORDS: dict[type[Struct], str] = {
    Holds: "holds",
    Disconnects: "disconnects",
    IdempotencyKeys: "idempotency",
    MeteredRoutes: "metered",
    Upstream: "upstream",
}


def check_flat(flat: Mapping[str, object]) -> None:
    """Warn of settings that are given one by one.

    Raises:
        TypeError: for one that does not exist.
    """
    kinds = {keyword: kind.__name__ for kind, keyword in _KEYWORDS.items()}
    for name in flat:
        if name not in _FLAT:
            raise TypeError(f"MeteringMiddleware got an unexpected keyword argument {name!r}")
        keyword, field = _FLAT[name]
        warn_renamed(f"MeteringMiddleware({name}=)", f"{keyword}={kinds[keyword]}({field}=)", stacklevel=3)


def with_flat(kind: type[Group], group: Group | None, flat: Mapping[str, object]) -> Group:
    """Return a group of settings, by default the group's defaults, with those that are given one by one.

    Raises:
        ConfigError: where a setting is wrong, or `group` is of another kind.
    """
    keyword = _KEYWORDS[kind]
    group = kind() if group is None else group
    if not isinstance(group, kind):
        raise ConfigError(f"{keyword} must be {kind.__name__}(...), not {group!r}")
    given = {_FLAT[name][1]: value for name, value in flat.items() if _FLAT[name][0] == keyword}
    return structs.replace(group, **given) if given else group


def _check_choice(name: str, value: object, *choices: str) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
