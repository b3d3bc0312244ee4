"""The journal of a store whose data is in a Redis, as consumers see it."""

from ducto_redis.engine.ids import split_entry_id
from ducto_redis.store.contract import JournalledStore


class RedisJournal(JournalledStore):
    """The journal's streams and their workers, read from `redis()`."""

    def live_workers(self, group: str) -> int:
        client = self.redis()
        seconds, microseconds = client.time()
        now = seconds * 1000 + microseconds // 1000
        return int(client.zcount(self.namespace.workers(group), now, "+inf"))

    def journal_ends(self) -> dict[int, tuple[int, int]]:
        ends = {}
        client = self.redis()
        for partition in self.partitions():
            journal = self.namespace.journal(partition)
            if client.exists(journal):
                end = split_entry_id(client.xinfo_stream(journal)["last-generated-id"].decode())
                if end[0]:  # a journal that no entry was ever written to is there for its groups alone
                    ends[partition] = end
        return ends
