"""The queue is a doorbell: a message says that a job waits, and nothing that the store does not know better."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from worker.settings import Settings

logger = logging.getLogger(__name__)

TASK = "worker.work"
QUEUE = "jobs"


def make_celery(settings: Settings, *, socket_seconds: float = 3.0) -> Celery:
    """The Celery app, which does not connect before it is used.

    Args:
        socket_seconds: how long a frozen broker may block a call; a worker, which blocks on purpose, takes more.
    """
    app = Celery("epochd", broker=settings.resolved_redis_url(), set_as_current=False)
    app.conf.update(
        # The store is the truth: nothing is kept in Redis, and a message is acknowledged before its work is done, so
        # that neither a long job nor a lost connection ever delivers it twice.
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE)],  # type: ignore[no-untyped-call]
        # A reserved message would wait behind a running job while another worker idles.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_soft_shutdown_timeout=0,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_redirect_stdouts=False,
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        # A caller must not wait for a broker that is away: the reconciler rings again.
        task_publish_retry=False,
        task_publish_retry_policy={"max_retries": 0},
        broker_transport_options={
            "global_keyprefix": "epochd:",
            "visibility_timeout": 3600,
            "socket_timeout": socket_seconds,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "max_retries": 0,
        },
    )
    return app


def ring(app: Celery, job_id: str) -> bool:
    """Tell the workers that a job waits; false, and logged, when the broker is away."""
    try:
        app.send_task(TASK, args=[job_id], queue=QUEUE, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("the bell of %s was not rung, it will be later: %s", job_id, error)
        return False
    return True


def num_bells(app: Celery) -> int | None:
    """Messages that wait in the queue; None, and logged, when the broker is away."""
    try:
        with app.connection_for_write(transport_options=app.conf.broker_transport_options) as connection:
            # Not passive: a passive declaration raises when the list is empty.
            declared = connection.default_channel.queue_declare(queue=QUEUE)
            return int(declared.message_count)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("the queue cannot be looked at: %s", error)
        return None
