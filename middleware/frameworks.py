"""Access of any framework's endpoints to the meter of their request."""

from typing import Any, Protocol, overload

from starlette.requests import HTTPConnection

from ducto_redis.errors import ConfigError
from ducto_redis.middleware.request_meter import RequestMeter


class HasScope(Protocol):
    """A request that knows its ASGI scope, as those of Starlette, FastAPI, Litestar and Django do."""

    @property
    def scope(self) -> Any:
        """The scope."""
        ...


@overload
def meter_of(request: HTTPConnection) -> RequestMeter: ...
@overload
def meter_of(request: HasScope) -> RequestMeter: ...
def meter_of(request: HTTPConnection) -> RequestMeter:  # type: ignore[misc]  # FastAPI gives it what is annotated so
    """Return the meter of a request that passes through a MeteringMiddleware.

    In FastAPI it is a dependency:

        Meter = Annotated[RequestMeter, Depends(meter_of)]

        @app.post("/render")
        async def render(meter: Meter): ...

    Args:
        request: the request, of Starlette, FastAPI, Litestar, Django, or anything else that has the ASGI `scope`.

    Raises:
        ConfigError: where no MeteringMiddleware is around the endpoint.
    """
    meter = request.scope.get("state", {}).get("meter")
    if not isinstance(meter, RequestMeter):
        raise ConfigError("there is no meter in this request: put a MeteringMiddleware around the application")
    return meter
