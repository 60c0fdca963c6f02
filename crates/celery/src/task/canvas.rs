//! Resolves a signature into nodes: every task gets its id, its queue and its position before anything is sent.
//!
//! The structure is normalised as Celery's own clients do: a chain inside a chain is flattened; a group inside a group or a header
//! is flattened, in order; a group followed by a step becomes a chord; steps after a chord that ends in a group become part of its
//! body. A group with one member stays a group, so its successor always gets a list.
//!
//! Pure: ids and defaults come from the caller, in the order of the nodes.

use super::invalid::Invalid;
use super::{GroupId, Priority, QueueName, Signature, TaskId, TaskSignature};

/// All tasks of a submission and their relations.
#[derive(Debug)]
pub struct Canvas {
    pub nodes: Vec<Node>,
    pub top: Step,
    pub edges: Vec<(usize, usize, EdgeKind)>,
    pub groups: Vec<Group>,
}

/// One task.
#[derive(Debug)]
pub struct Node {
    pub id: TaskId,
    /// The call and its options as the client sent them; its links are in `link` and `link_error`.
    pub task: TaskSignature,
    pub defaults: NodeDefaults,
    pub link: Vec<Step>,
    pub link_error: Vec<Step>,
    /// Whether the task is a link or an errback, or follows one, so that it may never run.
    pub branch: bool,
    /// The group that its result belongs to, and its position there.
    pub group: Option<(GroupId, i32)>,
    /// The only predecessor; `None` for a task that starts at once, and for a chord's body, which the last member to finish starts.
    pub parent: Option<usize>,
}

/// Defaults from the catalog, the routes and the configuration, for options that a call leaves out.
#[derive(Debug, Clone)]
pub struct NodeDefaults {
    /// The queue, unless the call names one.
    pub queue: QueueName,
    pub priority: Option<Priority>,
    /// Seconds.
    pub soft_time_limit: Option<f64>,
    /// Seconds.
    pub time_limit: Option<f64>,
    pub ignore_result: Option<bool>,
}

/// A normalised composition of nodes.
#[derive(Debug)]
pub enum Step {
    Task(usize),
    /// At least two steps; no step is a chain, and only the last may be a group.
    Chain(Vec<Step>),
    /// Members are tasks, chains and chords.
    Group {
        id: GroupId,
        members: Vec<Step>,
    },
    /// The header's members are tasks, chains and chords.
    Chord {
        id: GroupId,
        header: Vec<Step>,
        body: Box<Step>,
    },
}

/// Why a task follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// The next step of a chain, or a chord's body.
    Next,
    /// `link`: after success.
    Link,
    /// `link_error`: after failure.
    LinkError,
    /// An edge of a DAG: the gateway sends the task when the tasks of all such edges have succeeded.
    After,
}

impl EdgeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Link => "link",
            Self::LinkError => "link_error",
            Self::After => "after",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Next, Self::Link, Self::LinkError, Self::After].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A group or a chord's header, with the nodes whose results are its results, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: GroupId,
    pub members: Vec<usize>,
}

/// The place of a canvas's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Task(usize),
    Group(GroupId),
}

/// Maximum number of edges: two groups in a row connect each member of the first with each of the second, and each message of the first
/// contains the second.
pub(crate) const MAX_EDGES: usize = 250_000;

impl Node {
    pub fn queue(&self) -> &QueueName {
        self.task.queue.as_ref().unwrap_or(&self.defaults.queue)
    }

    pub fn priority(&self) -> Option<Priority> {
        self.task.priority.or(self.defaults.priority)
    }

    /// Seconds.
    pub fn soft_time_limit(&self) -> Option<f64> {
        self.task.soft_time_limit.or(self.defaults.soft_time_limit)
    }

    /// Seconds.
    pub fn time_limit(&self) -> Option<f64> {
        self.task.time_limit.or(self.defaults.time_limit)
    }

    pub fn ignore_result(&self) -> Option<bool> {
        self.task.ignore_result.or(self.defaults.ignore_result)
    }
}

impl Canvas {
    /// Gives every task its id (its own, or the next of `ids`) and its defaults.
    ///
    /// # Errors
    /// When groups in a row need more than 250,000 edges, or a member of a header or group would have no result.
    pub fn resolve(
        signature: Signature,
        ids: &mut dyn FnMut() -> TaskId,
        defaults: &dyn Fn(&TaskSignature) -> NodeDefaults,
    ) -> Result<Self, Vec<Invalid>> {
        let mut resolver =
            Resolver { nodes: Vec::new(), edges: Vec::new(), groups: Vec::new(), ids, defaults, invalid: Vec::new() };
        let top = resolver.step(signature, false);
        resolver.connect(&top);
        if !resolver.invalid.is_empty() {
            return Err(resolver.invalid);
        }
        resolver.parents();
        Ok(Self { nodes: resolver.nodes, top, edges: resolver.edges, groups: resolver.groups })
    }
}

impl Canvas {
    /// Makes this canvas one part of a larger group: the members of its top group get the id `group`, and positions from `first` on.
    pub fn as_part_of(mut self, group: &GroupId, first: i32) -> Self {
        for node in &mut self.nodes {
            if let Some((id, index)) = &mut node.group {
                *id = group.clone();
                *index = index.saturating_add(first);
            }
        }
        self.groups.clear();
        self
    }
}

impl Step {
    /// The nodes that start when the step starts.
    pub fn entries(&self) -> Vec<usize> {
        match self {
            Self::Task(node) => vec![*node],
            Self::Chain(steps) => steps.first().map(Self::entries).unwrap_or_default(),
            Self::Group { members, .. } => members.iter().flat_map(Self::entries).collect(),
            Self::Chord { header, body, .. } if header.is_empty() => body.entries(),
            Self::Chord { header, .. } => header.iter().flat_map(Self::entries).collect(),
        }
    }

    /// The nodes that end the step.
    pub fn exits(&self) -> Vec<usize> {
        match self {
            Self::Task(node) => vec![*node],
            Self::Chain(steps) => steps.last().map(Self::exits).unwrap_or_default(),
            Self::Group { members, .. } => members.iter().flat_map(Self::exits).collect(),
            Self::Chord { body, .. } => body.exits(),
        }
    }

    /// What Celery calls the result of the step.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Task(node) => Outcome::Task(*node),
            Self::Chain(steps) => steps.last().expect("a chain has steps").outcome(),
            Self::Group { id, .. } => Outcome::Group(id.clone()),
            Self::Chord { body, .. } => body.outcome(),
        }
    }

    fn ends_in_group(&self) -> bool {
        matches!(self.outcome(), Outcome::Group(_))
    }

    /// The step, with `next` after the group that it ends in.
    fn followed_by(self, next: Self) -> Self {
        match self {
            Self::Group { id, members } => Self::Chord { id, header: members, body: Box::new(next) },
            Self::Chord { id, header, body } => Self::Chord { id, header, body: Box::new(body.followed_by(next)) },
            Self::Chain(mut steps) => {
                let last = steps.pop().expect("a chain has steps");
                steps.push(last.followed_by(next));
                Self::Chain(steps)
            }
            Self::Task(node) => Self::Chain(vec![Self::Task(node), next]),
        }
    }
}

struct Resolver<'a> {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize, EdgeKind)>,
    groups: Vec<Group>,
    ids: &'a mut dyn FnMut() -> TaskId,
    defaults: &'a dyn Fn(&TaskSignature) -> NodeDefaults,
    invalid: Vec<Invalid>,
}

impl Resolver<'_> {
    fn step(&mut self, signature: Signature, branch: bool) -> Step {
        match signature {
            Signature::Task(task) => Step::Task(self.node(*task, branch)),
            Signature::Chain(steps) => {
                let steps = steps.into_iter().map(|step| self.step(step, branch)).collect();
                self.chain(steps)
            }
            Signature::Group(members) => {
                let members = self.members(members, branch);
                Step::Group { id: self.group_id(), members }
            }
            Signature::Chord { header, body } => {
                let header = self.members(header, branch);
                let body = Box::new(self.step(*body, branch));
                Step::Chord { id: self.group_id(), header, body }
            }
            Signature::Dag(_) => {
                self.refuse("a DAG is no part of another composition");
                Step::Group { id: self.group_id(), members: Vec::new() }
            }
        }
    }

    fn node(&mut self, mut task: TaskSignature, branch: bool) -> usize {
        let index = self.nodes.len();
        let (link, link_error) = (std::mem::take(&mut task.link), std::mem::take(&mut task.link_error));
        let id = task.task_id.clone().unwrap_or_else(|| (self.ids)());
        let defaults = (self.defaults)(&task);
        self.nodes.push(Node {
            id,
            task,
            defaults,
            link: Vec::new(),
            link_error: Vec::new(),
            branch,
            group: None,
            parent: None,
        });
        self.nodes[index].link = link.into_iter().map(|link| self.step(link, true)).collect();
        self.nodes[index].link_error = link_error.into_iter().map(|link| self.step(link, true)).collect();
        index
    }

    /// Members with nested groups flattened, in order.
    fn members(&mut self, members: Vec<Signature>, branch: bool) -> Vec<Step> {
        let mut flat = Vec::with_capacity(members.len());
        for member in members {
            match self.step(member, branch) {
                Step::Group { members, .. } => flat.extend(members),
                step => flat.push(step),
            }
        }
        flat
    }

    /// Steps with nested chains flattened and every group that has a successor turned into a chord.
    fn chain(&mut self, steps: Vec<Step>) -> Step {
        let mut flat = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Chain(steps) => flat.extend(steps),
                step => flat.push(step),
            }
        }
        let mut reversed: Vec<Step> = Vec::with_capacity(flat.len());
        while let Some(step) = flat.pop() {
            match reversed.pop() {
                Some(next) if step.ends_in_group() => reversed.push(step.followed_by(next)),
                Some(next) => reversed.extend([next, step]),
                None => reversed.push(step),
            }
        }
        reversed.reverse();
        match reversed.len() {
            0 => Step::Group { id: self.group_id(), members: Vec::new() },
            1 => reversed.pop().expect("just counted"),
            _ => Step::Chain(reversed),
        }
    }

    fn group_id(&mut self) -> GroupId {
        GroupId::parse((self.ids)().as_str()).expect("what is a task id is a group id")
    }

    /// Records the edges, groups and memberships of a step and of all steps inside it.
    fn connect(&mut self, step: &Step) {
        match step {
            Step::Task(node) => self.connect_links(*node),
            Step::Chain(steps) => {
                for pair in steps.windows(2) {
                    self.edges_between(&pair[0].exits(), &pair[1].entries());
                }
                steps.iter().for_each(|step| self.connect(step));
            }
            Step::Group { id, members } => self.connect_members(id, members),
            Step::Chord { id, header, body } => {
                let exits: Vec<usize> = header.iter().flat_map(Step::exits).collect();
                self.edges_between(&exits, &body.entries());
                self.connect_members(id, header);
                self.connect(body);
            }
        }
    }

    /// Inner groups come first, because a node belongs to the outermost group.
    fn connect_members(&mut self, id: &GroupId, members: &[Step]) {
        members.iter().for_each(|member| self.connect(member));
        let mut exits = Vec::with_capacity(members.len());
        for member in members {
            let before = exits.len();
            exits.extend(member.exits());
            if exits.len() == before {
                self.refuse("a member of a group or header ends in an empty group and so has no result");
            }
        }
        for (index, node) in exits.iter().enumerate() {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            if let Some((inner, _)) = self.nodes[*node].group.replace((id.clone(), index)) {
                self.groups.retain(|group| group.id != inner);
            }
        }
        self.groups.push(Group { id: id.clone(), members: exits });
    }

    fn connect_links(&mut self, node: usize) {
        for (kind, links) in [
            (EdgeKind::Link, std::mem::take(&mut self.nodes[node].link)),
            (EdgeKind::LinkError, std::mem::take(&mut self.nodes[node].link_error)),
        ] {
            for link in &links {
                self.edges.extend(link.entries().into_iter().map(|entry| (node, entry, kind)));
                self.connect(link);
            }
            match kind {
                EdgeKind::LinkError => self.nodes[node].link_error = links,
                EdgeKind::Link | EdgeKind::Next | EdgeKind::After => self.nodes[node].link = links,
            }
        }
    }

    fn edges_between(&mut self, from: &[usize], to: &[usize]) {
        if from.len().saturating_mul(to.len()) + self.edges.len() > MAX_EDGES {
            self.refuse("two large groups follow each other: the canvas has more than 250,000 edges");
            return;
        }
        for source in from {
            self.edges.extend(to.iter().map(|target| (*source, *target, EdgeKind::Next)));
        }
    }

    fn refuse(&mut self, detail: &str) {
        if self.invalid.iter().all(|invalid| invalid.detail != detail) {
            self.invalid.push(Invalid { pointer: String::new(), detail: detail.to_owned() });
        }
    }

    /// Sets the parent of each node that has exactly one incoming edge.
    fn parents(&mut self) {
        let mut incoming = vec![0_usize; self.nodes.len()];
        for (from, to, _) in &self.edges {
            incoming[*to] += 1;
            self.nodes[*to].parent = (incoming[*to] == 1).then_some(*from);
        }
    }
}
