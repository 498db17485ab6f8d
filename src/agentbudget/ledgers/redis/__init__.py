"""The ledger on a Redis or Valkey server: one budget for many processes and machines.

What is asked at once is one script that runs as a whole on the server. `verbs` writes the requests and reads the
replies, once for both ledgers: `RedisLedger` blocks, `AsyncRedisLedger` awaits and sends what many tasks ask for
together.
"""

from agentbudget.ledgers.redis.aio import AsyncRedisLedger
from agentbudget.ledgers.redis.ledger import RedisLedger

__all__ = ["AsyncRedisLedger", "RedisLedger"]
