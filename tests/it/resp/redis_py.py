"""What Celery, kombu, redis-py's locks, RedBeat and celery-once ask a Redis server, asked through redis-py: one line for each answer.

    python redis_py.py HOST PORT PROTOCOL

A test runs it against redis-server and against the server of `taskgate dev`: the lines must be the same. Answers whose order Redis
leaves open are sorted here, and times that run down are told as a range.
"""
import datetime
import socket
import sys
import threading
import time
import warnings

import redis
from redis.exceptions import RedisError

# Celery and its companions call what redis-py would rather not have called.
warnings.simplefilter("ignore", DeprecationWarning)
HOST, PORT, PROTOCOL = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def connect(db=0, **more):
    return redis.Redis(host=HOST, port=PORT, db=db, protocol=PROTOCOL, socket_timeout=20, **more)


r = connect()


def plain(value):
    """The same text for the same answer."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value, key=repr)}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def say(name, answer):
    """`answer` is called; an error is an answer, too."""
    try:
        value = plain(answer())
    except RedisError as error:
        value = f"{type(error).__name__}: {error}"
    print(f"{name}: {value!r}", flush=True)


def about(seconds):
    """A time that runs down, of more than a moment."""
    return "soon over" if 0 <= seconds < 5 else f"within {-(-seconds // 100) * 100}" if seconds > 0 else seconds


def strings():
    say("set", lambda: r.set("s", "1"))
    say("set nx taken", lambda: r.set("s", "2", nx=True))
    say("set xx get", lambda: r.set("s", "3", xx=True, get=True))
    say("set px", lambda: r.set("s2", "v", px=60_000))
    say("set keepttl", lambda: (r.set("s2", "w", keepttl=True), about(r.ttl("s2"))))
    say("set exat", lambda: (r.set("s3", "v", exat=datetime.datetime(2199, 1, 1)), r.ttl("s3") > 10 ** 9))
    say("getdel", lambda: (r.getdel("s3"), r.exists("s3")))
    say("getex", lambda: (r.getex("s2", persist=True), r.ttl("s2")))
    say("setex", lambda: (r.setex("s4", 86_400, b"\x00\xff\r\n"), r.get("s4"), about(r.pttl("s4") // 1000)))
    say("setex of nothing", lambda: r.setex("s4", 0, "v"))
    say("mset", lambda: (r.mset({"m1": 1, "m2": "zwei"}), r.mget("m1", "absent", "m2")))
    say("msetnx", lambda: r.msetnx({"m2": 1, "m3": 1}))
    say("incr", lambda: (r.incr("n"), r.incrby("n", 41), r.decr("n"), r.incrbyfloat("n", 0.5)))
    say("incr of a text", lambda: r.incr("m2"))
    say("append", lambda: (r.append("a", "Hello"), r.append("a", ", 안녕"), r.strlen("a"), r.getrange("a", 0, 4), r["a"]))
    say("setrange", lambda: (r.setrange("a", 7, "you"), r.getrange("a", 0, 9)))
    say("setbit", lambda: [r.setbit("bits", offset, 1) for offset in (7, 7, 100)] + [r.getbit("bits", 7), r.getbit("bits", 8)])
    say("bitcount", lambda: (r.bitcount("bits"), r.bitcount("bits", 0, 0), r.bitcount("bits", -1, -1), r.bitcount("bits", 0, 7, "BIT")))
    say("setbit too far", lambda: r.setbit("bits", 2 ** 32, 1))
    say("wrong kind", lambda: r.lpush("s", 1))


def keys():
    say("exists", lambda: r.exists("s", "s", "absent"))
    say("type", lambda: [r.type(key) for key in ("s", "absent")])
    say("expire", lambda: (r.expire("s", 100), about(r.ttl("s")), r.expire("s", 1, gt=True), r.persist("s"), r.ttl("s"), r.ttl("absent")))
    say("expireat", lambda: (r.expireat("s", 4_000_000_000), r.expiretime("s"), r.pexpireat("s", 4_000_000_000_001), r.pexpiretime("s")))
    say("expire in the past", lambda: (r.set("gone", 1), r.expire("gone", -1), r.exists("gone")))
    say("rename", lambda: (r.rename("a", "b"), r.renamenx("b", "s"), r.exists("a", "b")))
    say("rename of nothing", lambda: r.rename("absent", "x"))
    say("copy", lambda: (r.copy("s", "copied"), r.copy("s", "copied"), r.copy("s", "copied", replace=True), r.get("copied")))
    say("copy to another database", lambda: (r.copy("s", "far", destination_db=3), connect(3).get("far"), about(connect(3).ttl("far")) != 0))
    say("scan", lambda: (r.mset({f"scan:{n}": n for n in range(300)}), sorted(r.scan_iter("scan:*", 50)) == sorted(r.keys("scan:*")), len(r.keys("scan:?"))))
    say("scan of a type", lambda: (r.rpush("scan:list", 1), list(r.scan_iter("scan:*", 1000, _type="list"))))
    say("keys", lambda: sorted(r.keys("m[12]")))
    say("unlink", lambda: (r.unlink(*r.keys("scan:*")), r.dbsize() > 0, r.touch("s", "absent")))
    say("object", lambda: (r.object("encoding", "n"), r.object("refcount", "bits")))
    say("randomkey", lambda: r.randomkey() is not None)
    say("other databases", lambda: (connect(5).set("there", 1), connect(5).dbsize(), r.exists("there"), connect(5).flushdb(), connect(5).dbsize()))
    say("too many databases", lambda: connect(99).ping())


def lists():
    say("push", lambda: (r.lpush("l", 1, 2), r.rpush("l", 3, 4), r.lpushx("absent", 1), r.rpushx("l", 5), r.lrange("l", 0, -1)))
    say("pop", lambda: (r.lpop("l"), r.rpop("l"), r.lpop("l", 2), r.lpop("absent"), r.lpop("absent", 1)))
    say("lrem", lambda: (r.rpush("l2", *"abacada"), r.lrem("l2", 2, "a"), r.lrem("l2", -1, "a"), r.lrange("l2", 0, -1)))
    say("linsert", lambda: (r.linsert("l2", "before", "c", "x"), r.linsert("l2", "after", "absent", "x"), r.lindex("l2", -1), r.llen("l2")))
    say("lset", lambda: (r.lset("l2", 0, "first"), r.lset("l2", 99, "no")))
    say("ltrim", lambda: (r.ltrim("l2", 1, 2), r.lrange("l2", 0, 99)))
    say("lpos", lambda: (r.rpush("l3", *"abcab"), r.lpos("l3", "a"), r.lpos("l3", "a", rank=-1), r.lpos("l3", "b", count=0), r.lpos("l3", "z")))
    say("lmove", lambda: (r.lmove("l3", "l4", "LEFT", "RIGHT"), r.rpoplpush("l3", "l4"), r.lrange("l4", 0, -1), r.lmove("absent", "l4")))
    say("lmpop", lambda: (r.lmpop(2, "absent", "l3", direction="LEFT", count=2), r.lmpop(1, "absent", direction="LEFT")))
    say("brpop", lambda: (r.brpop(["absent", "l4"], 1), r.brpop("absent", 0.05)))
    say("brpop that waits", lambda: waits(lambda: r.brpop(["q0", "q3", "q6"], 10), lambda other: other.lpush("q3", "job")))
    say("blmove that waits", lambda: waits(lambda: r.blmove("src", "dst", 10), lambda other: other.lpush("src", "job")))
    say("bzpopmin that waits", lambda: waits(lambda: r.bzpopmin("zwait", 10), lambda other: other.zadd("zwait", {"m": 2.5})))


def waits(blocked, then):
    """The answer to a call that blocks until another client does something."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(blocked()))
    thread.start()
    other = connect()
    end = time.monotonic() + 15
    while not any("b" in client["flags"] for client in other.client_list()) and time.monotonic() < end:
        time.sleep(0.01)
    then(other)
    thread.join(20)
    return answers


def hashes():
    say("hset", lambda: (r.hset("h", mapping={"a": 1, "b": "2"}), r.hset("h", "a", 3), r.hsetnx("h", "a", 4), r.hgetall("h")))
    say("hget", lambda: (r.hget("h", "a"), r.hget("h", "z"), r.hmget("h", "a", "z"), r.hexists("h", "b"), r.hstrlen("h", "b")))
    say("hincr", lambda: (r.hincrby("h", "a", 4), r.hincrbyfloat("h", "f", 1.25), r.hincrby("h", "f")))
    say("hkeys", lambda: (sorted(r.hkeys("h")), sorted(r.hvals("h")), r.hlen("h")))
    say("hscan", lambda: (r.hset("big", mapping={f"f{n}": n for n in range(700)}), len(dict(r.hscan_iter("big", count=100))), dict(r.hscan_iter("h", "a"))))
    say("hdel", lambda: (r.hdel("h", "a", "b", "z"), r.hdel("h", "f"), r.exists("h")))


def sets():
    say("sadd", lambda: (r.sadd("set", "a", "b", "a"), r.sadd("set2", "b", "c"), r.smembers("set"), r.scard("set")))
    say("sismember", lambda: (r.sismember("set", "a"), r.smismember("set", ["a", "z"])))
    say("set algebra", lambda: (r.sunion("set", "set2"), r.sinter("set", "set2"), r.sdiff("set", "set2"), r.sunionstore("u", "set", "set2")))
    say("smove", lambda: (r.smove("set", "set2", "a"), r.smove("set", "set2", "z"), r.smembers("set2")))
    say("srem", lambda: (r.srem("set2", "a", "z"), r.spop("set"), r.spop("absent"), r.srandmember("set2") in (b"b", b"c")))
    say("sscan", lambda: (r.sadd("bigset", *range(900)), len(set(r.sscan_iter("bigset", count=100)))))


def sorted_sets():
    say("zadd", lambda: (r.zadd("z", {"a": 1, "b": 2.5, "c": 3}), r.zadd("z", {"a": 9}, nx=True), r.zadd("z", {"a": 0.5}, ch=True), r.zadd("z", {"a": 9}, lt=True)))
    say("zadd incr", lambda: (r.zadd("z", {"a": 1}, incr=True), r.zincrby("z", 2, "d"), r.zscore("z", "a"), r.zscore("z", "none")))
    say("zrange", lambda: (r.zrange("z", 0, -1), r.zrange("z", 0, 0, withscores=True), r.zrevrange("z", 0, 1), r.zrange("z", "(1.5", "+inf", byscore=True)))
    say("zrangebyscore", lambda: (r.zrangebyscore("z", "-inf", 2.5, withscores=True), r.zrangebyscore("z", 0, 99, start=1, num=1), r.zrevrangebyscore("z", 99, 0, start=0, num=2, withscores=True)))
    say("zcount", lambda: (r.zcount("z", 2, "+inf"), r.zcard("z"), r.zrank("z", "b"), r.zrevrank("z", "b"), r.zrank("z", "none"), r.zmscore("z", ["a", "none"])))
    say("zpop", lambda: (r.zpopmin("z"), r.zpopmax("z", 2), r.zpopmin("absent")))
    say("zrem", lambda: (r.zadd("z2", {str(n): n for n in range(20)}), r.zrem("z2", "3", "none"), r.zremrangebyscore("z2", 10, 12), r.zremrangebyrank("z2", 0, 1), r.zcard("z2")))
    say("zlex", lambda: (r.zadd("lex", {c: 0 for c in "abcd"}), r.zrangebylex("lex", "[b", "(d"), r.zlexcount("lex", "-", "+"), r.zremrangebylex("lex", "[a", "[b")))
    say("zscan", lambda: len(dict(r.zscan_iter("z2", count=5))))
    say("no number", lambda: r.zadd("z", {"a": "nan"}))


def pipelines():
    pipe = r.pipeline()
    say("multi", lambda: pipe.set("p", 1).incr("p").lpush("p", "x").get("p").execute(raise_on_error=False)[:2])
    plain_pipe = r.pipeline(transaction=False)
    say("no multi", lambda: plain_pipe.ping().get("p").execute())

    def watched():
        with r.pipeline() as pipe:
            pipe.watch("p")
            value = int(pipe.get("p"))
            connect().set("p", 50)
            pipe.multi()
            pipe.set("p", value + 1)
            return pipe.execute()

    say("watch", watched)
    say("transaction", lambda: (r.transaction(lambda pipe: (pipe.multi(), pipe.set("p", 7)), "p"), r.get("p")))


def scripts():
    twice = r.register_script("return {KEYS[1], tonumber(ARGV[1]) * 2, redis.call('incr', KEYS[1]), cjson.encode({a = 1})}")
    say("script", lambda: (twice(keys=["count"], args=[21]), twice(keys=["count"], args=[1])))
    say("eval", lambda: (r.eval("return redis.call('get', KEYS[1])", 1, "count"), r.eval("return {false, true, 1.9, 'x', {err = 'MY no'}}", 0)))
    say("eval that fails", lambda: r.eval("return redis.call('incr', 'm2')", 0).__class__)
    say("evalsha of nothing", lambda: r.evalsha("f" * 40, 0))
    say("script exists", lambda: r.script_exists(twice.sha, "f" * 40))


def locks():
    say("lock", lambda: one_lock())
    say("locks of two", two_locks)
    say("a lock that ran out", lost_lock)


def one_lock():
    lock = r.lock("lock:once", timeout=30)
    told = [lock.acquire(blocking=False), lock.locked(), lock.owned(), about(r.ttl("lock:once"))]
    told += [lock.extend(60), about(r.ttl("lock:once")), lock.extend(5, replace_ttl=True), lock.reacquire(), about(r.ttl("lock:once"))]
    lock.release()
    return told + [lock.locked()]


def two_locks():
    first, second = r.lock("lock:two", timeout=10), connect().lock("lock:two", timeout=10)
    told = [first.acquire(), second.acquire(blocking=False), second.acquire(blocking_timeout=0.1)]
    first.release()
    return told + [second.acquire(blocking_timeout=5), second.owned(), first.owned()]


def lost_lock():
    lock = r.lock("lock:lost", timeout=10)
    lock.acquire()
    r.delete("lock:lost")
    lock.release()


def redbeat():
    """A schedule in a hash, its due time in a sorted set, and a lock that is extended by a script."""
    key = "redbeat:report"
    with r.pipeline() as pipe:
        pipe.hset(key, "definition", '{"name": "report"}')
        pipe.zadd("redbeat::schedule", {key: 1_700_000_000.5})
        pipe.sadd("redbeat::statics", "report")
        say("redbeat saves", pipe.execute)
    say("redbeat is due", lambda: (r.zrangebyscore("redbeat::schedule", 0, 2_000_000_000, withscores=True), r.zrangebyscore("redbeat::schedule", "(2000000000", "+inf", start=0, num=1)))
    say("redbeat reads", lambda: (r.hmget(key, "definition", "meta"), r.zscore("redbeat::schedule", key), r.smembers("redbeat::statics")))
    lock = r.lock("redbeat::lock", timeout=1500, sleep=5, thread_local=False)
    say("redbeat locks", lambda: (lock.acquire(), lock.extend(1500), about(r.ttl("redbeat::lock"))))
    say("redbeat forgets", lambda: (r.zrem("redbeat::schedule", key), r.delete(key), r.srem("redbeat::statics", "report")))


def celery_once():
    """A key that is set once, and a script-free clean-up."""
    say("once", lambda: (r.set("qo_task_x", "1", ex=3600, nx=True), r.set("qo_task_x", "1", ex=3600, nx=True), about(r.ttl("qo_task_x")), r.delete("qo_task_x")))


def backend():
    """Results as Celery's backend keeps them, and what it does for a chord."""
    key = "celery-task-meta-11111111-1111-1111-1111-111111111111"
    listener = r.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(key)
    heard = []

    def store():
        with r.pipeline() as pipe:
            pipe.set(key, "{}", ex=86_400)
            pipe.publish(key, "{}")
            return pipe.execute()

    say("a result", store)
    end = time.monotonic() + 10
    while not heard and time.monotonic() < end:
        message = listener.get_message(timeout=1)
        heard += [message] if message else []
    say("is heard", lambda: heard)
    listener.unsubscribe(key)
    with r.pipeline() as pipe:
        pipe.zadd("g.j", {"[1]": 0}).zcount("g.j", "-inf", "+inf").get("g.t").get("g.s").expire("g.j", 86_400).expire("g.t", 86_400).expire("g.s", 86_400)
        say("a member of a chord", pipe.execute)
    say("its body", lambda: (r.zrange("g.j", 0, -1), r.delete("g.j"), r.mget(key, "absent")))


def kombu():
    """The transport itself, and what it keeps: bindings, reservations, priorities, fanout."""
    from kombu import Connection, Exchange, Queue

    options = {"visibility_timeout": 3600, "priority_steps": list(range(0, 10, 3))}
    with Connection(f"redis://{HOST}:{PORT}/9", transport_options=options) as connection:
        queue = Queue("work", Exchange("work", type="direct"), routing_key="work")
        topic = Queue("mails", Exchange("news", type="topic"), routing_key="mail.#")
        simple, producer = connection.SimpleQueue(queue), connection.Producer()
        say("kombu declares", lambda: queue(connection.default_channel).declare())
        for number in (0, 3, 9):
            producer.publish({"n": number}, exchange=queue.exchange, routing_key="work", priority=number, declare=[queue])
        store = connect(9)
        say("kombu's keys", lambda: sorted(store.keys("*work*")))
        say("kombu's order", lambda: [take(simple) for _ in range(3)])
        producer.publish({"n": 1}, exchange=queue.exchange, routing_key="work")
        message = simple.get(timeout=10)
        say("kombu reserves", lambda: (store.hlen("unacked"), store.zcard("unacked_index")))
        message.requeue()
        say("kombu gives back", lambda: (store.hlen("unacked"), store.llen("work")))
        message = simple.get(timeout=10)
        say("kombu says so", lambda: message.delivery_info.get("redelivered", message.properties.get("delivery_info", {}).get("redelivered")))
        message.reject()
        say("kombu routes", lambda: (topic(connection.default_channel).declare(), producer.publish("x", exchange=topic.exchange, routing_key="mail.new.now", declare=[topic]) and None, store.llen("mails")))
        producer.publish({"n": 2}, exchange=queue.exchange, routing_key="work")
        say("kombu counts", lambda: (simple.qsize(), simple.clear(), topic(connection.default_channel).purge()))
        say("kombu deletes", lambda: (topic(connection.default_channel).delete(), sorted(store.keys("*mails*"))))
        simple.close()


def take(simple):
    message = simple.get(timeout=10)
    message.ack()
    return message.payload["n"]


def channels():
    one = r.pubsub()
    one.subscribe("a")
    one.psubscribe("b.*")
    say("subscribed", lambda: [told(one) for _ in range(2)])
    say("published", lambda: (r.publish("a", "x"), r.publish("b.c", "y"), r.publish("nobody", "z")))
    say("received", lambda: [told(one) for _ in range(2)])
    say("pubsub", lambda: (r.pubsub_channels(), r.pubsub_numsub("a", "z"), r.pubsub_numpat()))
    one.unsubscribe("a")
    one.punsubscribe()
    say("unsubscribed", lambda: [told(one) for _ in range(2)])


def told(pubsub):
    return pubsub.get_message(timeout=10)


def server():
    say("ping", lambda: (r.ping(), r.echo("x"), len(r.time())))
    say("config get", lambda: (r.config_get("maxmemory"), r.config_get("databases"), r.config_get("maxmemory-policy")))
    say("config set", lambda: (r.config_set("maxmemory", 1_000_000_000), r.config_get("maxmemory"), r.config_set("maxmemory", 0)))
    say("config set of nothing", lambda: r.config_set("no-such-thing", 1))
    say("client", lambda: (r.client_setname("me"), r.client_getname(), "me" in [client["name"] for client in r.client_list()], r.client_id() > 0))
    say("client kill", killed)
    say("client kill of nobody", lambda: (r.client_kill_filter(_id="999999"), r.client_kill("1.2.3.4:5")))
    say("info", lambda: [name in r.info() for name in ("redis_version", "used_memory", "connected_clients", "role")])
    say("version", lambda: r.info("server")["redis_version"].startswith("7.0"))
    say("wait", lambda: r.wait(0, 10))
    say("command", lambda: r.command_count() > 100)
    say("no such command", lambda: r.execute_command("NO.SUCH", "a", b"b\r\n"))
    say("too few words", lambda: r.execute_command("GET"))
    say("flush", lambda: (r.flushall(), r.dbsize()))


def killed():
    victim = connect()
    number = victim.client_id()
    counts = [r.client_kill_filter(_id=str(number))]
    end = time.monotonic() + 10
    while any(client["id"] == str(number) for client in r.client_list()) and time.monotonic() < end:
        time.sleep(0.01)
    return counts + [victim.ping()]


for part in (strings, keys, lists, hashes, sets, sorted_sets, pipelines, scripts, locks, redbeat, celery_once, backend, kombu, channels, server):
    try:
        part()
    except (RedisError, socket.error, OSError) as error:
        print(f"{part.__name__} ended early: {type(error).__name__}: {error}")
