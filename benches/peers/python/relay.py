"""A relay as a backend developer writes it by hand in Python: pull, journal, publish, confirm, one batch at a time.

It stands in benches/ to be measured against. The README beside it says what it does and what it does not do.
"""

import hashlib
import json
import os
import resource
import sqlite3
import sys
import time

import pika
from pika.exchange_type import ExchangeType
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.vod.v20180717 import vod_client


class Cloud:
    """The vendor's SDK, on one connection that is kept alive."""

    def __init__(self, env):
        http = HttpProfile(
            protocol=env.get("RELAY_SCHEME", "https"),
            endpoint=env.get("RELAY_ENDPOINT", "vod.tencentcloudapi.com"),
            reqTimeout=10,
            keepAlive=True,
        )
        keys = credential.Credential(env["TENCENTCLOUD_SECRET_ID"], env["TENCENTCLOUD_SECRET_KEY"])
        self.client = vod_client.VodClient(keys, "", ClientProfile(httpProfile=http))

    def pull(self):
        """The events of one call. Not through the SDK's models: those drop members that they do not know, and cost more."""
        try:
            answer = self.client.call_json("PullEvents", {})
        except TencentCloudSDKException as error:
            if error.code == "ResourceNotFound":
                return []
            raise
        return answer["Response"].get("EventSet") or []

    def confirm(self, handles):
        self.client.call_json("ConfirmEvents", {"EventHandles": handles})


class Journal:
    """Every event and its newest handle, each commit on the disk before the call returns."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS events (message_id TEXT PRIMARY KEY, handle TEXT NOT NULL, event_type TEXT NOT NULL,"
            " body TEXT NOT NULL, state TEXT NOT NULL, pulled_at REAL NOT NULL)"
        )

    def record(self, events):
        """Returns those that were not relayed before."""
        now = time.time()
        rows = [(e.message_id, e.handle, e.event_type, e.body, now) for e in events]
        self.db.execute("BEGIN IMMEDIATE")
        new = [
            event
            for event, row in zip(events, rows)
            if self.db.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, 'received', ?)"
                " ON CONFLICT (message_id) DO UPDATE SET handle = excluded.handle RETURNING state",
                row,
            ).fetchall()
            == [("received",)]
        ]
        self.db.execute("COMMIT")
        return new

    def done(self, events):
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("UPDATE events SET state = 'done' WHERE message_id = ?", [(e.message_id,) for e in events])
        self.db.execute("COMMIT")


class Publisher:
    """A confirm channel. All messages of a batch are sent, then their confirms are waited for.

    pika's BlockingConnection waits for the confirm of each message before it sends the next, which costs a round trip
    to the broker's disk for every event; so its asynchronous connection is run by hand, from here, batch by batch.
    """

    def __init__(self, url, exchange, queue):
        self.exchange = exchange
        self.waiting = {}
        self.acked = set()
        self.returned = set()
        self.sent = 0
        self.problem = None
        self.connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=lambda _, error: self._failed(error),
            on_close_callback=lambda _, error: self._failed(error),
        )
        self.channel = None
        self.queue = queue
        self._run()

    def _run(self):
        self.connection.ioloop.start()
        if self.problem is not None:
            raise self.problem

    def _failed(self, error):
        self.problem = error if isinstance(error, Exception) else RuntimeError(error)
        self.connection.ioloop.stop()

    def _opened(self, channel):
        self.channel = channel
        channel.add_on_close_callback(lambda _, error: self._failed(error))
        channel.add_on_return_callback(lambda _, method, properties, body: self.returned.add(properties.message_id))
        exchange, queue = self.exchange, self.queue

        def declare_queue(_):
            quorum = {"x-queue-type": "quorum"}
            channel.queue_declare(queue, durable=True, arguments=quorum, callback=bind)

        def bind(_):
            channel.queue_bind(queue, exchange, "vod.#", callback=ask_for_confirms)

        def ask_for_confirms(_):
            channel.confirm_delivery(self._answered, lambda _: self.connection.ioloop.stop())

        channel.exchange_declare(exchange, ExchangeType.topic, durable=True, callback=declare_queue)

    def _answered(self, frame):
        method = frame.method
        tags = [t for t in self.waiting if t <= method.delivery_tag] if method.multiple else [method.delivery_tag]
        for tag in tags:
            message_id = self.waiting.pop(tag)
            if isinstance(method, pika.spec.Basic.Ack):
                self.acked.add(message_id)
        if not self.waiting:
            self.connection.ioloop.stop()

    def publish(self, events):
        """Returns the ids of those that are safe: acked, and not returned."""
        self.acked.clear()
        self.returned.clear()
        for event in events:
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                message_id=event.message_id,
                type=event.event_type,
                timestamp=int(time.time()),
            )
            self.sent += 1
            self.waiting[self.sent] = event.message_id
            key = f"vod.0.{event.event_type}"
            self.channel.basic_publish(self.exchange, key, event.body.encode(), properties, mandatory=True)
        self._run()
        return self.acked - self.returned


class Event:
    def __init__(self, pulled):
        self.handle = pulled.pop("EventHandle")
        self.event_type = pulled["EventType"]
        self.body = json.dumps(pulled, ensure_ascii=False, separators=(",", ":"))
        self.message_id = hashlib.sha256(self.body.encode()).hexdigest()[:32]


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def relay_batch(cloud, journal, publisher):
    """Pulls once and carries what came to its end. Returns how many events were confirmed."""
    events = [Event(pulled) for pulled in cloud.pull()]
    if not events:
        return 0
    new = journal.record(events)
    safe = publisher.publish(new) if new else set()
    # What is not safe is not confirmed, so that the cloud hands it over again.
    unsafe = {e.message_id for e in new} - safe
    good = [e for e in events if e.message_id not in unsafe]
    if good:
        cloud.confirm([e.handle for e in good])
        journal.done(good)
    return len(good)


def main():
    env = os.environ
    wanted = int(env.get("RELAY_EVENTS", "0"))
    cloud = Cloud(env)
    journal = Journal(env["RELAY_JOURNAL"])
    publisher = Publisher(
        env["RELAY_AMQP_URL"], env.get("RELAY_EXCHANGE", "vod.events"), env.get("RELAY_QUEUE", "vod.events")
    )
    began, cpu_began, relayed = time.monotonic(), cpu_seconds(), 0
    while not wanted or relayed < wanted:
        try:
            relayed += relay_batch(cloud, journal, publisher)
        except TencentCloudSDKException as error:
            print(f"the cloud: {error}", file=sys.stderr)
            time.sleep(1)
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu_began
    print(json.dumps({"events": relayed, "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)}))


if __name__ == "__main__":
    main()
