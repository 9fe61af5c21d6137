"""What a job's script does before its supervisor runs: what the site wants, and a last word.

A module that is missing or a profile that fails ends the script before any program of ours could
say so. A trap then tells the run's own folder: a line of ``launches.jsonl``, which status shows,
and the end of what the script printed, in ``log.txt``. Bash and coreutils alone.
"""

import shlex

from launch.run_folder.records import LAUNCHES_FILE
from launch.slurm.plan import RUNS_FILE, SubmitPlan
from launch.slurm_config import SlurmConfig

# ks_text cuts what may be a key out of a line, which goes where others read. ks_mark notes where a
# command failed: the line of the script, or of a file that it sources; of a function (module is
# one) the line that called it. ks_end: $1 is the status, $2 what ran last; of what was printed it
# tells the last line with an error (Lmod adds advice), else the last.
_TRAP = r"""
ks_text() {
  local text=${1%%=*}
  case ${1,,} in *key*|*token*|*secret*|*passw*|*bearer*|*://*) text='(a line about a key)';; esac
  printf %s "$text"
}
ks_mark() {
  local i=1 line=$1 text
  while [[ ${FUNCNAME[i]-main} != @(main|source) ]]; do line=${BASH_LINENO[i]}; i=$((i + 1)); done
  mapfile -t -s $((line - 1)) -n 1 text < "${BASH_SOURCE[i]}"
  ks_at="line $line of ${BASH_SOURCE[i]##*/}: $(ks_text "${text[0]-$2}")"
}
ks_end() {
  set +eEu; trap - ERR EXIT
  local run reason said last id=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  id=${id:-$SLURM_JOB_ID}
  mapfile -t -s "${SLURM_ARRAY_TASK_ID:-0}" -n 1 run < "$ks_folder/$ks_runs"
  [[ -d ${run[0]} ]] || exit "$1"
  said=$(command -p tail -n 20 -- "$ks_folder/$id.out" | command -p grep '[^[:space:]]')
  last=$(command -p grep -i error <<< "$said") || last=$said
  last=${last##*$'\n'}
  reason="exit status $1 before the supervisor started, ${ks_at:-$(ks_text "$2")}: ${last:0:300}"
  { printf '[launch] job %s: %s\n' "$id" "$reason"
    command -p tail -n 20 -- "$ks_folder/$id.out"; } >> "${run[0]}/log.txt"
  reason=${reason//\\/\\\\}; reason=${reason//\"/\\\"}; reason=${reason//[[:cntrl:]]/ }
  printf '{"event": "end", "time": %(%s)T, "outcome": "failed", "next": "give up", "job": "%s", '\
'"job_name": "%s", "reason": "%s"}\n' -1 "$id" "$ks_name" "$reason" >> "${run[0]}/$ks_launches"
  exit "$1"
}
trap 'ks_mark $LINENO "$BASH_COMMAND"' ERR
trap 'ks_end $? "$BASH_COMMAND"' EXIT
set -eEu
"""
# A login shell would have it; this one has read no profile.
_MODULES = r"""
if ! type module >/dev/null 2>&1; then
  for ks_file in "${MODULESHOME:-}/init/bash" /etc/profile.d/lmod.sh /etc/profile.d/modules.sh \
      /usr/share/lmod/lmod/init/bash /usr/share/modules/init/bash; do
    if [ -r "$ks_file" ]; then set +e; . "$ks_file"; set -e; ks_at=; break; fi
  done
  type module >/dev/null 2>&1 || { echo 'cluster.slurm.modules: there is no command "module"' \
    'on this node. Define it in cluster.slurm.prologue.' >&2; exit 1; }
fi
"""


def trap_lines(plan: SubmitPlan) -> list[str]:
    """Return the lines that tell the run's folder how the script ended without its supervisor."""
    names = {
        "ks_folder": str(plan.folder),
        "ks_name": plan.job_name,
        "ks_runs": RUNS_FILE,
        "ks_launches": LAUNCHES_FILE,
    }
    return [*(f"{name}={shlex.quote(text)}" for name, text in names.items()), *_lines(_TRAP)]


def site_lines(site: SlurmConfig) -> list[str]:
    """Return the lines that source the site's file and load its modules; the first failure ends."""
    if not (site.prologue or site.modules or site.module_paths):
        return []
    # The files of sites and modules use variables that may not be set.
    lines = ["set +u"]
    if site.prologue:
        lines.append(f". {shlex.quote(site.prologue)}")
    if site.modules or site.module_paths:
        lines += _lines(_MODULES)
    lines += [f"module use {shlex.quote(path)}" for path in site.module_paths]
    lines += [f"module load {shlex.quote(module)}" for module in site.modules]
    return [*lines, "set -u"]


def _lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")
