"""Stores: what a manager needs of an engine, and the engines that give it."""

from ducto_redis.store.contract import CreditStore, JournalledStore
from ducto_redis.store.memory import MemoryStore
from ducto_redis.store.redis import RedisStore
from ducto_redis.store.script_store import ScriptStore
from ducto_redis.store.urls import store_from_url

__all__ = ["CreditStore", "JournalledStore", "MemoryStore", "RedisStore", "ScriptStore", "store_from_url"]
