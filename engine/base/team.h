/* team.h: the thread team of a job.
 *
 * One OpenMP parallel region is opened for a whole run (bp_team_run): thread 0, the leader, runs the trainer's
 * serial code; the others wait in the team for work. The leader hands out a stage of independent tasks with
 * bp_team_for, takes part in it and goes on when all tasks are done, so a stage costs one barrier: threads spin
 * briefly, then sleep on a futex.
 *
 * The leader may change how many threads take part between any two stages (bp_team_set_active); the rest sleep.
 * Each thread runs one slice of the tasks, in order: tasks next to each other work on memory next to each other, and
 * what one stage leaves in a thread's cache the next finds there. Tasks must not depend on each other nor on which
 * thread runs them; a result that depends on the number of threads is a bug of the task.
 *
 * Thread creation inside OpenMP ends the process when it fails, and libgomp ends threads when a later region is
 * smaller: so every region of one calling thread has the same capacity, and the daemon opens an empty one in each
 * of its workers at start-up.
 *
 * Every function accepts a NULL team and then runs serially on the calling thread.
 */
#ifndef BP_BASE_TEAM_H
#define BP_BASE_TEAM_H

#include <stdint.h>

struct bp_team;

#define BP_TEAM_MAX 256 /* threads; a limit against mistyped numbers */

typedef void bp_team_leader(struct bp_team *team, void *arg);
typedef void bp_team_task(void *arg, int task, int thread);

/* Runs leader(team, arg) in a region of `capacity` threads (1 to BP_TEAM_MAX), all of them active at first, and
 * returns when it has returned. Called from the thread that owns the job. */
void bp_team_run(int capacity, bp_team_leader *leader, void *arg);

/* Leader only: runs task(arg, 0 .. ntasks-1, thread), thread in [0, active), and returns when all are done. All
 * writes of the tasks are visible to the leader and to later stages. One task, or one active thread, costs nothing
 * but the calls. */
void bp_team_for(struct bp_team *team, int ntasks, bp_team_task *task, void *arg);

/* Where the slice of a part begins when ntasks tasks are divided between `parts` threads; it ends where the next one
 * begins. What does not divide evenly goes to the later parts, to others for another `turn`. */
static inline int bp_team_slice(int ntasks, int parts, int part, int turn)
{
    if (parts == 1) { /* a small network has many slices, and divisions */
        return ntasks * part;
    }
    return (int)(((int64_t)ntasks * part + turn % parts) / parts);
}

/* Leader only: how many threads take part from the next stage on, clamped to [1, capacity]. */
void bp_team_set_active(struct bp_team *team, int threads);
int bp_team_active(const struct bp_team *team);   /* 1 for NULL */
int bp_team_capacity(const struct bp_team *team); /* 1 for NULL */

#endif
