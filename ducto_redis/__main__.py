"""`python -m ducto_redis` is `ducto`."""

from ducto_redis.cli import main

main()
