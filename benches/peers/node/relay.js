// A relay as a backend developer writes it by hand in Node: pull, journal, publish, confirm, one batch at a time.
//
// It stands in benches/ to be measured against. The README beside it says what it does and what it does not do.
"use strict";

const { createHash } = require("node:crypto");
const http = require("node:http");
const https = require("node:https");

const amqp = require("amqplib");
const Database = require("better-sqlite3");
const { vod } = require("tencentcloud-sdk-nodejs-vod");

/** The vendor's SDK, on one connection that is kept alive. */
class Cloud {
  constructor(env) {
    const scheme = env.RELAY_SCHEME || "https";
    // Without an agent the SDK's fetch closes the connection after each call.
    this.agent = new (scheme === "http" ? http : https).Agent({ keepAlive: true });
    const endpoint = env.RELAY_ENDPOINT || "vod.tencentcloudapi.com";
    this.client = new vod.v20180717.Client({
      credential: { secretId: env.TENCENTCLOUD_SECRET_ID, secretKey: env.TENCENTCLOUD_SECRET_KEY },
      region: "",
      profile: { httpProfile: { protocol: `${scheme}://`, endpoint, reqTimeout: 10, agent: this.agent } },
    });
  }

  async pull() {
    try {
      return (await this.client.PullEvents({})).EventSet || [];
    } catch (error) {
      if (error.code === "ResourceNotFound") return [];
      throw new CloudError(error);
    }
  }

  async confirm(handles) {
    try {
      await this.client.ConfirmEvents({ EventHandles: handles });
    } catch (error) {
      throw new CloudError(error);
    }
  }
}

class CloudError extends Error {
  constructor(cause) {
    super(`the cloud: ${cause.code || ""} ${cause.message}`, { cause });
  }
}

/** Every event and its newest handle, each commit on the disk before the call returns. */
class Journal {
  constructor(path) {
    const db = new Database(path);
    this.db = db;
    db.pragma("journal_mode = WAL");
    db.pragma("synchronous = FULL");
    db.exec(
      "CREATE TABLE IF NOT EXISTS events (message_id TEXT PRIMARY KEY, handle TEXT NOT NULL, event_type TEXT NOT NULL," +
        " body TEXT NOT NULL, state TEXT NOT NULL, pulled_at REAL NOT NULL)",
    );
    const insert = db.prepare(
      "INSERT INTO events VALUES (?, ?, ?, ?, 'received', ?)" +
        " ON CONFLICT (message_id) DO UPDATE SET handle = excluded.handle RETURNING state",
    );
    const finish = db.prepare("UPDATE events SET state = 'done' WHERE message_id = ?");
    /** Returns those that were not relayed before. */
    this.record = db.transaction((events) => {
      const now = Date.now() / 1000;
      return events.filter((e) => insert.get(e.messageId, e.handle, e.eventType, e.body, now).state === "received");
    });
    this.done = db.transaction((events) => events.forEach((e) => finish.run(e.messageId)));
  }
}

/** A confirm channel. All messages of a batch are sent, then their confirms are waited for. */
class Publisher {
  static async open(url, exchange, queue) {
    const connection = await amqp.connect(url, { noDelay: true });
    const channel = await connection.createConfirmChannel();
    await channel.assertExchange(exchange, "topic", { durable: true });
    await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
    await channel.bindQueue(queue, exchange, "vod.#");
    return new Publisher(connection, channel, exchange);
  }

  constructor(connection, channel, exchange) {
    this.connection = connection;
    this.channel = channel;
    this.exchange = exchange;
    this.returned = new Set();
    channel.on("return", (message) => this.returned.add(message.properties.messageId));
  }

  /** Returns the ids of those that are safe: acked, and not returned. */
  async publish(events) {
    this.returned.clear();
    const timestamp = Math.floor(Date.now() / 1000);
    const answers = events.map(
      (e) =>
        new Promise((resolve) => {
          const options = {
            contentType: "application/json",
            persistent: true,
            mandatory: true,
            messageId: e.messageId,
            type: e.eventType,
            timestamp,
          };
          const body = Buffer.from(e.body);
          this.channel.publish(this.exchange, `vod.0.${e.eventType}`, body, options, (refused) =>
            resolve(refused ? null : e.messageId),
          );
        }),
    );
    const acked = await Promise.all(answers);
    return new Set(acked.filter((id) => id !== null && !this.returned.has(id)));
  }
}

function toEvent({ EventHandle: handle, ...event }) {
  const body = JSON.stringify(event);
  const messageId = createHash("sha256").update(body).digest("hex").slice(0, 32);
  return { handle, eventType: event.EventType, body, messageId };
}

/** Pulls once and carries what came to its end. Returns how many events were confirmed. */
async function relayBatch(cloud, journal, publisher) {
  const events = (await cloud.pull()).map(toEvent);
  if (events.length === 0) return 0;
  const fresh = journal.record(events);
  const safe = fresh.length > 0 ? await publisher.publish(fresh) : new Set();
  // What is not safe is not confirmed, so that the cloud hands it over again.
  const unsafe = new Set(fresh.map((e) => e.messageId).filter((id) => !safe.has(id)));
  const good = events.filter((e) => !unsafe.has(e.messageId));
  if (good.length > 0) {
    await cloud.confirm(good.map((e) => e.handle));
    journal.done(good);
  }
  return good.length;
}

async function main() {
  const env = process.env;
  const wanted = Number(env.RELAY_EVENTS || 0);
  const cloud = new Cloud(env);
  const journal = new Journal(env.RELAY_JOURNAL);
  const exchange = env.RELAY_EXCHANGE || "vod.events";
  const publisher = await Publisher.open(env.RELAY_AMQP_URL, exchange, env.RELAY_QUEUE || "vod.events");
  const began = process.hrtime.bigint();
  const cpuBegan = process.cpuUsage();
  let relayed = 0;
  while (wanted === 0 || relayed < wanted) {
    try {
      relayed += await relayBatch(cloud, journal, publisher);
    } catch (error) {
      if (!(error instanceof CloudError)) throw error;
      console.error(error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const used = process.cpuUsage(cpuBegan);
  const cpu = (used.user + used.system) / 1e6;
  console.log(JSON.stringify({ events: relayed, seconds: Number(seconds.toFixed(3)), cpu_seconds: Number(cpu.toFixed(3)) }));
  cloud.agent.destroy();
  await publisher.connection.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
