from __future__ import annotations

import httpx
import pytest

from server.app import create_app
from server.errors import RateLimited
from server.rates import RateLimiter
from tests.server.problems import assert_problem
from tests.server.seeding import Seed
from worker.settings import Settings
from worker.store import keys
from worker.store.keys import Scope

pytestmark = pytest.mark.anyio


def test_a_bucket_empties_and_fills_again() -> None:
    limiter = RateLimiter(6)  # one in 10 s
    left = [limiter.take("a", 100.0)["RateLimit"] for _ in range(6)]
    assert left[0] == '"requests";r=5;t=10'
    assert left[-1] == '"requests";r=0;t=60'
    with pytest.raises(RateLimited) as refused:
        limiter.take("a", 104.0)
    assert refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "6"
    assert limiter.take("b", 104.0)["RateLimit"] == '"requests";r=5;t=10', "a key has a bucket of its own"
    assert limiter.take("a", 110.0)["RateLimit"] == '"requests";r=0;t=60'
    assert limiter.take("a", 1000.0)["RateLimit"] == '"requests";r=5;t=10', "a bucket holds no more than the limit"


async def test_every_answer_tells_what_is_left_and_a_flood_is_429(settings: Settings, seed: Seed) -> None:
    app = create_app(settings.model_copy(update={"auth": "keys", "rate_limit": 3}))
    with seed.database.write() as c:
        mine, other = ({"Authorization": f"Bearer {keys.create(c, name='a', scope=Scope.READ)[1]}"} for _ in range(2))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        # Neither another path, an error nor a header that a client can invent is a way around.
        for number, path in enumerate(("/v1/jobs", "/v1/jobs/job_nobody", "/v1/schema")):
            response = await client.get(path, headers={**mine, "X-Forwarded-For": f"10.0.0.{number}"})
            assert response.headers["ratelimit-policy"] == '"requests";q=3;w=60'
            assert response.headers["ratelimit"].startswith(f'"requests";r={2 - number};t=')
        response = await client.get("/v1/jobs", headers={**mine, "X-Forwarded-For": "10.0.0.9"})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "20"
        assert response.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert assert_problem(response)["code"] == "rate_limited"
        assert (await client.get("/v1/jobs", headers=other)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
