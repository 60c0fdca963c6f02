-- Whose words a token's keys are (limits, unique, Idempotency-Key). Null: its name's.
alter table taskgate.token add column namespace text;
