//! Restores the bookkeeping of chords that Redis lost, before their members run again: without its size a chord never ends, and
//! parts that ended before the loss would never be counted.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use tracing::warn;

use super::{PAGE, Sweeper, Trouble};
use celery::chord::Part;
use celery::exception::Exception;
use celery::task::{GroupId, Phase, json};
use ledger::{EdgeKind, Group, GroupMember};

/// Chords that are rebuilt at the same time: nothing is queued again before all are rebuilt.
const AT_ONCE: usize = 8;

impl Sweeper {
    /// Restores the chords of all unfinished canvases.
    pub(super) async fn rebuild_chords(&self) -> Result<(), Trouble> {
        let mut after = 0;
        let mut done: HashSet<GroupId> = HashSet::new();
        loop {
            // An unfinished chord has a waiting body.
            let waiting = self.ledger.unfinished(&[Phase::Waiting], after, PAGE).await?;
            let Some(last) = waiting.last() else { return Ok(()) };
            after = last.no;
            let numbers: Vec<i64> = waiting.iter().map(|task| task.no).collect();
            let before = self.ledger.predecessors(&numbers).await?.into_iter();
            let headers =
                before.filter(|before| before.kind == EdgeKind::Next).filter_map(|before| before.task.group_id);
            let new: Vec<GroupId> = headers.filter(|group| done.insert(group.clone())).collect();
            for some in new.chunks(AT_ONCE) {
                try_join_all(some.iter().map(|group| self.rebuild_unless_refused(group))).await?;
            }
        }
    }

    /// A key of the wrong type must not prevent the repair of other chords.
    async fn rebuild_unless_refused(&self, group: &GroupId) -> Result<(), Trouble> {
        match self.rebuild_chord(group).await {
            Err(Trouble::Redis(error)) if error.is_refusal() => {
                warn!(group.id = %group, error = %error, "chord {group} cannot be rebuilt: {error}");
                Ok(())
            }
            other => other,
        }
    }

    async fn rebuild_chord(&self, id: &GroupId) -> Result<(), Trouble> {
        let Some(group) = self.ledger.group(id).await? else { return Ok(()) };
        let Some(size) = group.chord_size else { return Ok(()) };
        // A complete chord is not handled here, because a worker that counts a part would send its body.
        if group.completed() >= group.total {
            return Ok(());
        }
        if let Some(structure) = &group.structure {
            self.backend.save_group(id.as_str(), structure.get()).await?;
        }
        let parts: Vec<_> = parts(&group).collect();
        self.backend.rebuild_chord(id.as_str(), size, &parts).await?;
        metrics::counter!("taskgate_repairs_total", "kind" => "chord_rebuilt").increment(1);
        warn!(group.id = %id, "chord {id} is rebuilt with {} of {size} parts", parts.len());
        Ok(())
    }
}

pub(super) fn parts(group: &Group) -> impl Iterator<Item = (Option<i64>, Part)> + '_ {
    group.members.iter().filter_map(|member| Some((member.index.map(i64::from), part(member)?)))
}

fn part(member: &GroupMember) -> Option<Part> {
    let value = match member.phase {
        Phase::Succeeded => member.result.clone().unwrap_or_else(json::null),
        phase if phase.is_final() => {
            let failure = member.failure.as_ref();
            let (kind, text) = failure.map_or(("Exception", ""), |failure| (&*failure.kind, &*failure.message));
            Exception::new("builtins", kind, text).encode()
        }
        _ => return None,
    };
    Some(Part { task_id: member.task_id.to_string(), state: member.phase.status().to_owned(), value })
}
