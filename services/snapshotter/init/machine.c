// SPDX-License-Identifier: Apache-2.0
/*
 * The state machine of README.md. The state changes only in become_x(), which also sets what
 * belongs to the new state. What waits in one place: the tap (for a packet), CRIU (for its answer),
 * the tree (for its last process to be reaped), timers (deadline, idle, back-off).
 */
#include "init.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define BACKOFF_FIRST_MS 20
#define BACKOFF_LAST_MS 1000

/* Why a tree is being cleared, and so what comes after. */
enum clearing { OF_UNARMED, OF_FAILURE, OF_EVICTION, OF_EXIT };

struct machine machine;
struct policy policy;
static const struct spec *sandbox;
static struct wake wake;
static enum clearing clearing;
static unsigned int failures; /* in a row */
static struct source deadline = {.fd = -1}, backoff = {.fd = -1};
static struct client *waker, *evicter, *killer;

static void become_armed(void);
static void on_answer(const struct answer *answer);

const char *state_name(enum state state)
{
	static const char *const names[] = {"idle",	 "started", "trying",	"armed",
					    "restoring", "running", "clearing", "backoff"};

	return names[state];
}

static void report(const char *what)
{
	struct text text = {0};

	text_add(&text, "report %s", what);
	ctl_report(&text);
}

static void answer_and_forget(struct client **client, bool well)
{
	if (*client && well)
		ctl_ok(*client);
	else if (*client)
		ctl_failure(*client);
	*client = NULL;
}

static void answer_waker(void)
{
	struct text text = {0};

	text_add(&text, "ok woke=1 sequence=%lu", wake.sequence);
	if (waker)
		ctl_answer(waker, &text);
	waker = NULL;
}

/* ---- the states ---- */

static void become_idle(void)
{
	machine.state = IDLE;
	machine.root = 0;
	answer_and_forget(&killer, true);
}

static void become_started(pid_t root)
{
	machine.state = STARTED;
	machine.root = root;
}

/* CRIU waits, and is asked by command. The tree it restores stays until it is killed. */
static void become_trying(void)
{
	machine.state = TRYING;
	wake = (struct wake){.by_command = true, .limit_ms = policy.deadline_ms, .failure = "none"};
}

static void become_clearing(enum clearing reason)
{
	siginfo_t none;

	machine.state = CLEARING;
	clearing = reason;
	timer_at(&deadline, 0);
	idle_stop();
	restore_drop();
	tree_kill();
	if (waitid(P_ALL, 0, &none, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 && errno == ECHILD)
		machine_no_child_left();
}

static void become_backoff(void)
{
	uint64_t pause = BACKOFF_FIRST_MS;

	for (unsigned int i = 2; i < failures && pause < BACKOFF_LAST_MS; i++)
		pause *= 2;
	if (pause > BACKOFF_LAST_MS)
		pause = BACKOFF_LAST_MS;
	machine.state = BACKOFF;
	timer_at(&backoff, now_ns() + pause * MILLISECOND);
}

static void failed_to_arm(void)
{
	failures++;
	last_words("cannot arm: %s: %s", failure.step, failure.detail);
	become_backoff();
}

/* The filter passes first packets before the gate closes, so that none falls between. */
static void become_armed(void)
{
	char what[64];

	if (restore_prepare(sandbox, on_answer) || tap_hold() || gate_close()) {
		failed_to_arm();
		return;
	}
	machine.state = ARMED;
	machine.root = 0;
	machine.generation++;
	state_publish(PUBLISHED_ARMED);
	tap_watch(true);
	snprintf(what, sizeof(what), "armed generation=%lu", machine.generation);
	report(what);
	answer_and_forget(&evicter, true);
}

static void end_restore(const char *failed, const struct answer *answer);

static uint64_t deadline_ns(void)
{
	return wake.sent_ns + (uint64_t)policy.deadline_ms * MILLISECOND;
}

static void become_restoring(const struct first_packet *packet)
{
	char what[64];

	machine.state = RESTORING;
	wake = (struct wake){.sequence = ++machine.sequence,
			     .by_command = !packet,
			     .syn_ns = packet ? packet->time_ns : now_ns(),
			     .limit_ms = policy.deadline_ms,
			     .failure = "none"};
	if (packet)
		memcpy(wake.client, packet->client, sizeof(wake.client));
	wake.sent_ns = now_ns(); /* first: CRIU may run before we do again */
	if (restore_request(policy.request, policy.request_length)) {
		end_restore("died", NULL);
		return;
	}
	timer_at(&deadline, deadline_ns());
	tap_watch(false);
	state_publish(PUBLISHED_RESTORING);
	snprintf(what, sizeof(what), "restoring sequence=%lu cause=%s", wake.sequence,
		 packet ? "packet" : "command");
	report(what);
}

/*
 * Published first, since publishing reads and writes the whole value: an answer's stamp would be
 * lost. Then the gate, then the held packets, whose connections are answered as they come.
 */
static void become_running(pid_t root)
{
	state_publish(PUBLISHED_RUNNING);
	if (gate_open())
		die("opening the gate: %s", failure.detail);
	wake.held = tap_release(false);
	wake.open_ns = now_ns();
	machine.state = RUNNING;
	machine.root = root;
	machine.wakes++;
	failures = 0;
	timer_at(&deadline, 0);
	wake.root = root;
	wakes_keep(&wake);
	wakes_report(&wake);
	answer_waker();
	restore_drop();
	idle_watch();
}

/* ---- restoring ---- */

static void end_restore(const char *failed, const struct answer *answer)
{
	wakes_end(&wake, failed, answer);
	machine.failed_wakes++;
	failures++;
	tap_watch(false);
	become_clearing(OF_FAILURE);
}

static void end_trial(const char *how, const struct answer *answer)
{
	timer_at(&deadline, 0);
	wakes_end(&wake, how, answer);
	machine.root = wake.root = answer && answer->ok ? answer->pid : 0;
	restore_drop();
	wakes_tell(waker, &wake);
	waker = NULL;
}

/* SAFETY: pid is above 1 (restore.c); it is our child, so that the number is not another's. */
static bool lives(pid_t pid)
{
	return pid > 1 && !kill(pid, 0);
}

static void on_answer(const struct answer *answer)
{
	if (machine.state == ARMED) { /* CRIU ended while it waited */
		failures++;
		tap_watch(false);
		wake = (struct wake){0};
		become_clearing(OF_EXIT);
		return;
	}
	if (machine.state == TRYING)
		end_trial(answer->ok ? "none" : restore_failure(answer), answer);
	if (machine.state != RESTORING)
		return;
	wake.answer_ns = now_ns();
	if (!answer->ok) {
		end_restore(restore_failure(answer), answer);
		return;
	}
	if (wake.answer_ns > deadline_ns()) { /* the timer fired as well, and comes next */
		end_restore("late", answer);
		return;
	}
	become_running(answer->pid);
	if (!lives(answer->pid))
		machine_child_ended(answer->pid, SIGKILL);
}

static void on_deadline(struct source *source)
{
	if (!timer_fired(source))
		return;
	if (machine.state == RESTORING)
		end_restore("late", NULL);
	else if (machine.state == TRYING)
		end_trial("late", NULL);
}

void machine_first_packet(const struct first_packet *packet)
{
	if (machine.state == ARMED)
		become_restoring(packet);
}

/* ---- clearing ---- */

static void close_gate(void)
{
	if (tap_hold() || gate_close())
		die("closing the gate: %s", failure.detail);
}

/*
 * The held clients meet an open gate and a closed port: they are reset. Who comes next is held
 * again, unless it was not the first failure in a row.
 */
static void reset_clients(void)
{
	uint64_t resets = sockets_resets();

	if (gate_open())
		die("opening the gate: %s", failure.detail);
	wake.held = tap_release(false);
	tree_await_resets(resets + (uint64_t)wake.held);
	wake.open_ns = now_ns();
	if (failures < 2)
		close_gate();
	wakes_keep(&wake);
	wakes_report(&wake);
	answer_waker();
}

void machine_no_child_left(void)
{
	if (machine.state != CLEARING)
		return;
	if (clearing == OF_FAILURE)
		reset_clients();
	tree_forget();
	if (clearing == OF_UNARMED)
		become_idle();
	else if (failures > 1)
		become_backoff();
	else
		become_armed();
	answer_and_forget(&killer, true);
}

static void on_backoff(struct source *source)
{
	if (timer_fired(source) && machine.state == BACKOFF)
		become_armed();
}

/* ---- running ---- */

static void report_exit(pid_t pid, int status)
{
	char what[128];

	snprintf(what, sizeof(what), "exited pid=%d code=%d signal=%d oom=%d", pid,
		 WIFEXITED(status) ? WEXITSTATUS(status) : -1,
		 WIFSIGNALED(status) ? WTERMSIG(status) : 0, oom_happened());
	report(what);
}

void machine_child_ended(pid_t pid, int status)
{
	if (pid != machine.root || pid <= 1)
		return;
	if (machine.state == STARTED || machine.state == TRYING) {
		report_exit(pid, status);
		become_clearing(OF_UNARMED);
	} else if (machine.state == RUNNING) {
		report_exit(pid, status);
		close_gate();
		become_clearing(OF_EXIT);
	}
}

/* The kernel ended a part of the tree (v1); the rest goes too. */
static void on_out_of_memory(void)
{
	if (machine.state == RESTORING)
		end_restore("oom", NULL);
	else if (machine.state == TRYING && machine.root <= 1)
		end_trial("oom", NULL);
	else if (machine.state == RUNNING || machine.state == STARTED || machine.state == TRYING)
		machine_child_ended(machine.root, SIGKILL);
}

void machine_evicted(bool by_idleness)
{
	machine.evictions++;
	report(by_idleness ? "evicted idle=1" : "evicted idle=0");
	become_clearing(OF_EVICTION);
}

/* ---- commands ---- */

void machine_refuse(struct client *client, const char *verb)
{
	errno = 0;
	fail("state", "%s is not possible while %s", verb, state_name(machine.state));
	ctl_failure(client);
}

int machine_spawn(const struct program *program)
{
	pid_t root = spawn_function(sandbox, program);

	if (root < 0)
		return -1;
	become_started(root);
	return 0;
}

int machine_try(void)
{
	if (restore_prepare(sandbox, on_answer))
		return -1;
	become_trying();
	return 0;
}

void machine_restore(struct client *client)
{
	if (machine.state != TRYING || wake.sent_ns) {
		machine_refuse(client, "restore");
	} else {
		wake.syn_ns = wake.sent_ns = now_ns();
		if (restore_request(policy.request, policy.request_length)) {
			ctl_failure(client);
			return;
		}
		timer_at(&deadline, deadline_ns());
		waker = client;
	}
}

int machine_arm(void)
{
	become_armed();
	return machine.state == ARMED ? 0 : -1;
}

void machine_wake(struct client *client)
{
	struct text text = {0};

	if (machine.state == RUNNING) {
		text_add(&text, "ok woke=0");
		ctl_answer(client, &text);
	} else if ((machine.state == ARMED || machine.state == RESTORING) && !waker) {
		waker = client;
		if (machine.state == ARMED)
			become_restoring(NULL);
	} else {
		machine_refuse(client, "wake");
	}
}

void machine_evict(struct client *client, long hold_ms)
{
	if (machine.state == ARMED) {
		ctl_ok(client);
	} else if (machine.state == CLEARING && clearing != OF_UNARMED && !evicter) {
		evicter = client;
	} else if (machine.state == RUNNING) {
		evicter = client;
		if (evict(hold_ms) == REFUSED)
			answer_and_forget(&evicter, false);
	} else {
		machine_refuse(client, "evict");
	}
}

void machine_kill_tree(struct client *client)
{
	if (machine.state == IDLE) {
		ctl_ok(client);
	} else if ((machine.state == STARTED || machine.state == TRYING ||
		    machine.state == CLEARING) &&
		   !killer) {
		killer = client;
		if (machine.state != CLEARING)
			become_clearing(OF_UNARMED);
	} else {
		machine_refuse(client, "kill-tree");
	}
}

void machine_client_gone(struct client *client)
{
	if (waker == client)
		waker = NULL;
	if (evicter == client)
		evicter = NULL;
	if (killer == client)
		killer = NULL;
}

void machine_open(const struct spec *spec)
{
	sandbox = spec;
	timer_open(&deadline, on_deadline);
	idle_open();
	timer_open(&backoff, on_backoff);
	tree_open(spec);
	oom_open(spec, on_out_of_memory);
}
