"""The broker goes away and comes back, in order and by kill -9; the workers stay up and lose nothing."""

from __future__ import annotations

import time

from faults.deployment import deployed, wait_until
from faults.invariants import check
from faults.load import Load
from faults.pauses import longest_pause
from schemas.errors import StorageUnavailable
from streams.kafka.log import KafkaLog


def test_the_broker_restarts_under_load_and_workers_stop_without_it(broker, seed):
    with deployed(broker.address, runtime={"kafka_timeout_s": 15.0}) as deployment:
        load = Load(deployment, seed)
        workers = [deployment.start("decide", f"decide-{number}") for number in range(2)]
        for worker in workers:
            worker.wait_for("worker_started")
        with load:
            load.wait_for_decided(200)
            broker.stop()
            broker.start()
            load.wait_for_decided(200)
            broker.kill()
            broker.start()
            load.wait_for_decided(200)
            assert all(worker.alive for worker in workers), deployment.tails()
            broker.kill()
            time.sleep(0.5)  # they are waiting for a commit now
            for worker in workers:
                worker.process.terminate()
            assert [worker.stop() for worker in workers] == [0, 0], deployment.tails()
        broker.start()
        deployment.started("decide")
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        print(f"{len(snapshot.of('requests'))} requests, longest pause {longest_pause(snapshot)}")
        assert not any("Traceback" in worker.text() for worker in workers), deployment.tails()
        load.close()


def test_who_asks_for_offsets_gets_answers_after_every_restart(broker):
    """A client that kept what it once knew of the leaders would be told that there are none, from then on."""
    with deployed(broker.address, partitions=3) as deployment:
        log = deployment.open_log()
        assert log.ends("requests") == [0, 0, 0]
        for go_away in (broker.stop, broker.stop, broker.kill, broker.stop):
            go_away()
            broker.start()
            wait_until(lambda: _answers(log), 20, "no answer from a broker that is there again", every_s=0.2)
            assert log.ends("requests") == [0, 0, 0]
        log.close()


def _answers(log: KafkaLog) -> bool:
    try:
        return log.ends("requests") == [0, 0, 0]
    except StorageUnavailable:
        return False
