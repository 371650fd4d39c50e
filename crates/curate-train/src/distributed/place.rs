//! Which of how many processes this is, and where they meet: told by torchrun, Slurm or `--nproc`.

use crate::{Error, Result};

/// Environment variable in which the launcher names a socket that it already listens on, so that no port is raced for.
pub const LISTEN_FD: &str = "CURATE_LISTEN_FD";

/// A process among those of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the process, from 0.
    pub rank: u32,
    /// Number of processes.
    pub world_size: u32,
    /// Number among the processes of this machine, from 0: which GPU is its own.
    pub local_rank: u32,
    /// Number of processes of this machine, if that is known: they share its cores.
    pub local_world_size: Option<u32>,
    /// Cores that are counted for this process, if the launcher says so; it need not be bound to them.
    pub own_cores: Option<u32>,
    /// Where the ranks meet.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether rank 0 serves the store there; torchrun's agent may do it already.
    pub serves: bool,
    /// A socket that already listens on the port, for rank 0.
    pub listen_fd: Option<i32>,
    /// Sets the keys of this start of the group apart from those of an earlier one in the same store.
    pub prefix: String,
}

impl Place {
    /// The place of this process by its environment; `None` if it is on its own.
    ///
    /// torchrun's variables come first (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`, `LOCAL_RANK`), then those of
    /// a Slurm step (`SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`). A batch script that was not started by `srun` is no step:
    /// there a program is on its own, whatever the job has reserved.
    ///
    /// # Errors
    /// [`Error::Environment`], which names the variable that is missing or makes no sense.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
        let env = Environment(&variable);
        let place = if variable("RANK").is_some() || variable("WORLD_SIZE").is_some() {
            env.torchrun()?
        } else if variable("SLURM_PROCID").is_some() && variable("SLURM_STEP_NUM_TASKS").is_some() {
            env.slurm()?
        } else {
            return Ok(None);
        };
        if place.rank >= place.world_size {
            let problem = format!("rank {} of {} processes", place.rank, place.world_size);
            return Err(Error::Environment { name: "RANK", problem });
        }
        Ok((place.world_size > 1).then_some(place))
    }
}

struct Environment<'a, F: Fn(&str) -> Option<String>>(&'a F);

impl<F: Fn(&str) -> Option<String>> Environment<'_, F> {
    fn torchrun(&self) -> Result<Place> {
        let rank = self.needed("RANK")?;
        let agent_serves = (self.0)("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let restarts: u32 = self.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0);
        let host = (self.0)("MASTER_ADDR").filter(|host| !host.is_empty());
        Ok(Place {
            rank,
            world_size: self.needed("WORLD_SIZE")?,
            local_rank: self.number("LOCAL_RANK")?.unwrap_or(rank),
            local_world_size: self.number("LOCAL_WORLD_SIZE")?,
            own_cores: None,
            host: host
                .ok_or_else(|| Error::Environment { name: "MASTER_ADDR", problem: "is not set".into() })?,
            port: self.needed("MASTER_PORT")?,
            serves: rank == 0 && !agent_serves,
            listen_fd: self.number(LISTEN_FD)?,
            prefix: format!("curate/{restarts}"),
        })
    }

    fn slurm(&self) -> Result<Place> {
        let rank = self.needed("SLURM_PROCID")?;
        let nodes = (self.0)("SLURM_STEP_NODELIST").or_else(|| (self.0)("SLURM_JOB_NODELIST"));
        let first = match self.number("SLURM_STEP_NUM_NODES")? {
            Some(1_u32) => Some("127.0.0.1".to_owned()), // whatever a node's name resolves to in there
            _ => nodes.as_deref().and_then(first_node),
        };
        let host = (self.0)("MASTER_ADDR").or(first).ok_or_else(|| Error::Environment {
            name: "SLURM_STEP_NODELIST",
            problem: "names no node; set MASTER_ADDR".into(),
        })?;
        let job: u64 = self.number("SLURM_JOB_ID")?.unwrap_or(0);
        let step: u64 = self.number("SLURM_STEP_ID")?.unwrap_or(0);
        Ok(Place {
            rank,
            world_size: self.needed("SLURM_STEP_NUM_TASKS")?,
            local_rank: self.number("SLURM_LOCALID")?.unwrap_or(rank),
            // Where Slurm binds its tasks, a process sees no other cores than its own: they are shared already.
            local_world_size: None,
            own_cores: self.cores_of_a_task()?,
            host,
            port: self.number("MASTER_PORT")?.unwrap_or(port_of(job, step)),
            serves: rank == 0,
            listen_fd: None,
            // Ranks that meet another step's store after all must not take that one's ranks for theirs.
            prefix: format!("curate/{job}.{step}"),
        })
    }

    /// The step's cores on this node, shared between its tasks there: `SLURM_GTIDS` lists these, `0,1`.
    fn cores_of_a_task(&self) -> Result<Option<u32>> {
        let Some(tasks) = (self.0)("SLURM_GTIDS") else { return Ok(None) };
        let tasks = u32::try_from(tasks.split(',').count()).unwrap_or(u32::MAX);
        let cores: Option<u32> = self.number("SLURM_CPUS_ON_NODE")?;
        Ok(cores.map(|cores| (cores / tasks).max(1)))
    }

    fn needed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T> {
        self.number(name)?.ok_or_else(|| Error::Environment { name, problem: "is not set".into() })
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>> {
        let Some(text) = (self.0)(name) else { return Ok(None) };
        let number = text.trim().parse();
        number
            .map(Some)
            .map_err(|_| Error::Environment { name, problem: format!("{text:?} is no fitting number") })
    }
}

/// The port of a Slurm step, above those of system services and below those of outgoing connections.
///
/// Steps that run at once on one node must not meet each other: those of a job get different ports, and those of jobs
/// whose numbers are near do.
fn port_of(job: u64, step: u64) -> u16 {
    let number = job.wrapping_add(step.wrapping_mul(1_009)) % 12_000; // 1009 is prime to 12000
    20_000 + u16::try_from(number).expect("below 12000")
}

/// The first host of a Slurm node list: `node[03-07,12]` → `node03`, `a1,b2` → `a1`.
fn first_node(list: &str) -> Option<String> {
    let Some(open) = list.find('[').filter(|open| list.find(',').is_none_or(|comma| *open < comma)) else {
        return list.split(',').next().map(str::to_owned).filter(|name| !name.is_empty());
    };
    let (prefix, rest) = list.split_at(open);
    let number = rest[1..].split(['-', ',', ']']).next()?;
    let suffix = rest.split_once(']').map_or("", |(_, after)| after.split(',').next().unwrap_or(""));
    Some(format!("{prefix}{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let find =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Place::from_environment(find).map_err(|error| error.to_string())
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("MASTER_ADDR", "node7"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn torchrun_says_all() {
        let expected = Place {
            rank: 3,
            world_size: 4,
            local_rank: 1,
            local_world_size: Some(2),
            own_cores: None,
            host: "node7".into(),
            port: 29_500,
            serves: false,
            listen_fd: None,
            prefix: "curate/0".into(),
        };
        assert_eq!(place(&TORCHRUN), Ok(Some(expected)));
        let mut first = TORCHRUN;
        first[0].1 = "0";
        assert!(place(&first).unwrap().unwrap().serves);
        let agent =
            [&first[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")]];
        let agent = place(&agent.concat()).unwrap().unwrap();
        assert_eq!((agent.serves, agent.prefix.as_str()), (false, "curate/2"));
    }

    #[test]
    fn slurm_steps_are_groups_and_batch_scripts_are_not() {
        let step = [
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "gpu[03-04]"),
            ("SLURM_JOB_ID", "25001"),
            ("SLURM_GTIDS", "4,5,6,7"),
            ("SLURM_CPUS_ON_NODE", "18"),
        ];
        let found = place(&step).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank), (5, 8, 1));
        assert_eq!((found.host.as_str(), found.port, found.serves), ("gpu03", 21_001, false));
        assert_eq!((found.local_world_size, found.own_cores), (None, Some(4)));
        let second = place(&[&step[..], &[("SLURM_STEP_ID", "1")]].concat()).unwrap().unwrap();
        assert_eq!((found.prefix.as_str(), second.prefix.as_str()), ("curate/25001.0", "curate/25001.1"));
        assert_eq!(second.port, 22_010, "steps of a job that run at once do not meet");
        let small = place(&[&step[..], &[("SLURM_STEP_NUM_NODES", "1")]].concat()).unwrap().unwrap();
        assert_eq!(small.host, "127.0.0.1");
        assert_eq!(place(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), Ok(None));
    }

    #[test]
    fn one_process_is_no_group() {
        assert_eq!(place(&[]), Ok(None));
        let mut alone = TORCHRUN;
        (alone[0].1, alone[1].1) = ("0", "1");
        assert_eq!(place(&alone), Ok(None));
    }

    #[test]
    fn what_is_missing_or_senseless_is_named() {
        let without = |name: &str| TORCHRUN.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
        assert_eq!(place(&without("MASTER_PORT")), Err("MASTER_PORT is not set".into()));
        assert_eq!(place(&without("RANK")), Err("RANK is not set".into()));
        let with = |value| [&[("RANK", value)], &without("RANK")[..]].concat();
        assert_eq!(place(&with("4")), Err("RANK rank 4 of 4 processes".into()));
        assert_eq!(place(&with("x")), Err("RANK \"x\" is no fitting number".into()));
    }

    #[test]
    fn first_nodes() {
        let check =
            |list, expected: Option<&str>| assert_eq!(first_node(list).as_deref(), expected, "{list}");
        check("node1", Some("node1"));
        check("node1,node2", Some("node1"));
        check("node[03-07,12]", Some("node03"));
        check("a,node[03-07]", Some("a"));
        check("rack[1-2]n,x", Some("rack1n"));
        check("", None);
    }
}
