"""What every message runs, as one statement each: a round trip more would cost more than the work itself.

The step is locked before the job, as everywhere. What was true before either was waited for need not be true any more,
so both are looked at again when they are ours; the step is changed only when the job is, so all of it happens or
nothing.
"""

from __future__ import annotations

from typing import Final

# `gone` is the lock of a process that is known to be dead: its lease need not run out.
CLAIM: Final = """
    WITH held AS MATERIALIZED (
      SELECT id, job_id FROM job_steps
      WHERE id = %(step_id)s AND attempt < max_attempts AND run_after <= now()
        AND (state = 'queued' OR (state = 'running' AND (lease_until < now() OR holder = %(gone)s)))
      FOR UPDATE
    ), job AS (
      UPDATE jobs SET state = 'running', started_at = coalesce(started_at, now()), error_code = NULL,
                      error_detail = NULL, revision = revision + 1, updated_at = now()
      WHERE id = (SELECT job_id FROM held) AND state IN ('queued', 'running') AND cancel_requested_at IS NULL
      RETURNING document_id, version_id, options
    ), step AS (
      UPDATE job_steps
      SET state = 'running', attempt = attempt + 1, worker = %(worker)s, holder = %(holder)s,
          lease_until = now() + make_interval(secs => %(lease)s), error_code = NULL
      WHERE id = (SELECT id FROM held) AND EXISTS (SELECT FROM job)
      RETURNING id, tenant_id, job_id, step, part, attempt, checkpoint
    ), lost AS (
      UPDATE job_attempts SET ended_at = now(), outcome = 'lost', error_code = 'worker_lost'
      WHERE step_id = (SELECT id FROM step) AND ended_at IS NULL
    ), begun AS (
      INSERT INTO job_attempts (id, tenant_id, step_id, attempt, worker)
      SELECT %(attempt_id)s, tenant_id, id, attempt, %(worker)s FROM step
    )
    SELECT * FROM step, job
    """
FINISH: Final = """
    WITH held AS MATERIALIZED (
      SELECT id, job_id FROM job_steps
      WHERE id = %(step_id)s AND attempt = %(attempt)s AND state = 'running'
      FOR UPDATE
    ), job AS (
      UPDATE jobs SET state = 'ready', finished_at = now(), result = coalesce(cast(%(result)s AS jsonb), result),
                      revision = revision + 1, updated_at = now()
      WHERE id = (SELECT job_id FROM held) AND state = 'running' AND cancel_requested_at IS NULL
      RETURNING id
    ), step AS (
      UPDATE job_steps SET state = 'ready', lease_until = NULL
      WHERE id = (SELECT id FROM held) AND EXISTS (SELECT FROM job)
      RETURNING id
    ), ended AS (
      UPDATE job_attempts SET ended_at = now(), outcome = 'ready'
      WHERE step_id = (SELECT id FROM step) AND attempt = %(attempt)s
    )
    SELECT (SELECT count(*) FROM held) AS steps, (SELECT count(*) FROM job) AS jobs,
           CASE WHEN %(tell)s THEN pg_notify(%(channel)s, '') END
    """
