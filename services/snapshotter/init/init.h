/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of aether-init know of each other. README.md has the protocol and the states. */
#ifndef AETHER_INIT_H
#define AETHER_INIT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define INNER_LINK "eth0"
#define HANDLER_FOLDER "/run/aether"
#define HANDLER_SOCKET HANDLER_FOLDER "/handler.sock"
#define FUNCTION_ID 1000
#define NANOSECONDS 1000000000ull
#define MILLISECOND 1000000ull
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* fail.c: why something failed, kept until somebody tells it. */
struct failure {
	char step[32];
	int errnum;
	char detail[320];
};
extern struct failure failure;
int fail(const char *step, const char *format, ...) __attribute__((format(printf, 2, 3)));
void last_words(const char *format, ...) __attribute__((format(printf, 1, 2)));
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void last_words_to(int fd);

/* text.c: lines of "verb key=value ...". */
struct line {
	char *verb;
	size_t count;
	struct {
		char *key, *value;
	} pairs[24];
};
struct text {
	size_t length;
	char bytes[8192];
};
int line_parse(char *bytes, struct line *line);
const char *line_value(const struct line *line, const char *key);
long line_number(const struct line *line, const char *key, long otherwise);
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_pair(struct text *text, const char *key, const char *value);

/* loop.c: one epoll loop, one event at a time. */
struct source {
	int fd;
	void (*ready)(struct source *source);
};
void loop_open(void);
void loop_add(struct source *source, int fd, void (*ready)(struct source *source));
void loop_pause(struct source *source, bool paused);
void loop_close(struct source *source);
void loop_run(void) __attribute__((noreturn));
uint64_t now_ns(void);
void timer_open(struct source *timer, void (*ready)(struct source *source));
void timer_at(struct source *timer, uint64_t when_ns); /* 0 stops it */
bool timer_fired(struct source *timer);

/* launch.c: the host half, and the specification it reads. */
#define MAX_BINDS 96
#define MAX_TREES 16
#define MAX_LOWERS 4
#define MAX_JOINS 4 /* v2, and those of v1: memory, pids, cpu */
#define MAX_HELD 1024
struct bind {
	int fd;
	bool on_tree; /* its target lies in a writable folder, and is mounted anew with it */
	char *target;
};
struct link {
	char *path, *to;
};
struct tree {
	char *tag, *target;
	mode_t mode;
	uid_t owner;
	int lowers;
	int lower_fds[MAX_LOWERS];
};
struct held {
	char *tag, *path; /* in which tree, and where below its top */
	unsigned long inode;
};
struct spec {
	int control, words, kill, oom_event, oom_counter;
	int joins[MAX_JOINS], tree_joins[MAX_JOINS];
	size_t join_count, tree_join_count, bind_count, link_count, tree_count, held_count;
	char *hostname;
	long id_base, layers_size;
	struct bind binds[MAX_BINDS];
	struct link links[MAX_TREES];
	struct tree trees[MAX_TREES];
	struct held held[MAX_HELD];
};
int launch(void);

/* mounts.c: what the sandbox sees. */
#define LAYERS "/layers"
#define LOWERS "/lowers"
#define PATH_ROOM 4352 /* PATH_MAX and what is before it */
void make_folders(const char *path, bool last_too);
int mounts_make(const struct spec *spec);
int layers_make(const struct spec *spec);
int layers_drop(const struct spec *spec);
int snapshot_attach(int mount_fd);

/* held.c: files whose inode numbers a program knows. */
int held_make(const struct spec *spec);
int held_place(const struct spec *spec, const struct tree *tree);

/* main.c */
void init_run(const struct spec *spec) __attribute__((noreturn));

/* spawn.c: processes of the tree. */
struct program {
	bool container; /* uid 0 of the sandbox with some capabilities, else uid 1000 with none */
	char *cwd;
	char *argv[512];
	char *env[2048];
};
pid_t spawn_function(const struct spec *spec, const struct program *program);
pid_t spawn_criu(const struct spec *spec, int *request_fd, int *words_fd);

/* handler.c: our end of AETHER_SOCKET. */
int handler_open(void);
void handler_close(void);

/* gate.c: the inner addresses' local routes. */
int gate_set_addresses(const char *ipv4, const char *ipv6);
int gate_open(void);
int gate_close(void);

/* tap.c: holds first packets, and sends them again. */
struct first_packet {
	uint64_t time_ns;
	char client[64];
};
int tap_attach(int tap_fd, int link_fd, uint16_t port, void (*first)(const struct first_packet *));
int tap_hold(void);
void tap_watch(bool watched);
int tap_hold_all(void);
bool tap_heard_old_clients(uint64_t closed_ns);
int tap_release(bool old_clients_too); /* returns how many frames were sent again */

/* state.c: the state map. */
enum published { PUBLISHED_ARMED = 1, PUBLISHED_RESTORING, PUBLISHED_RUNNING, PUBLISHED_ENDED };
void state_attach(int map_fd, uint32_t slot);
void state_publish(enum published state);

/* sockets.c: the sandbox's TCP sockets by inet_diag. */
struct survey {
	unsigned int connections; /* to the trigger port, from outside */
	const char *in_flight;	  /* NULL, or what was seen */
};
struct ended {
	unsigned int inbound, outbound;
};
void sockets_set_inner(const char *ipv4, const char *ipv6);
int sockets_survey(uint16_t port, uint64_t tie_ms, bool held, struct survey *survey);
int sockets_end_outside(uint16_t port, struct ended *ended);
int sockets_end_all(void);
int sockets_hurry(void);
uint64_t sockets_activity(void);
uint64_t sockets_resets(void);

/* closing.c: what is done to connections that the tree holds before they end. */
void closing_finish(uint32_t *inodes, size_t count);
void closing_hurry(uint32_t *inodes, size_t count);

/* restore.c: the waiting `criu swrk`. */
struct answer {
	bool ok, died;
	pid_t pid;
	int cr_errno;
	char words[2048];
};
int restore_prepare(const struct spec *spec, void (*answered)(const struct answer *));
int restore_request(const uint8_t *request, size_t length);
const char *restore_failure(const struct answer *answer);
void restore_words(struct answer *answer);
void restore_drop(void);

/* ctl.c: the control protocol. */
struct client;
struct command {
	struct client *client;
	struct line line;
	const uint8_t *payload;
	size_t payload_length;
	int fds[4];
	size_t fd_count;
};
void ctl_open(int listener);
void ctl_report(const struct text *text);
void ctl_answer(struct client *client, const struct text *text);
void ctl_ok(struct client *client);
void ctl_failure(struct client *client);
void command_run(struct command *command); /* commands.c */

/* wakes.c: the newest wakes. */
struct wake {
	unsigned long sequence;
	bool by_command;
	uint64_t syn_ns, sent_ns, answer_ns, open_ns;
	int held;
	char client[64];
	pid_t root;
	const char *failure; /* "none", "late", "refused", "died", "oom" */
	long limit_ms;
	int cr_errno;
	char error[1024];
};
void wakes_end(struct wake *wake, const char *how, const struct answer *answer);
void wakes_keep(const struct wake *wake);
void wakes_report(const struct wake *wake);
void wakes_answer(struct client *client, unsigned long since);
void wakes_tell(struct client *client, const struct wake *wake);

/* machine.c: the state machine. State changes only in its become_x(). */
enum state { IDLE, STARTED, TRYING, ARMED, RESTORING, RUNNING, CLEARING, BACKOFF };
struct policy {
	uint16_t port;
	long deadline_ms, idle_ms, tie_ms;
	uint8_t request[8192];
	size_t request_length;
};
struct machine {
	enum state state;
	pid_t root;
	unsigned long wakes, failed_wakes, evictions, sequence, generation;
};
extern struct machine machine;
extern struct policy policy;
const char *state_name(enum state state);
void machine_open(const struct spec *spec);
void machine_refuse(struct client *client, const char *verb);
int machine_spawn(const struct program *program);
int machine_try(void);
void machine_restore(struct client *client);
int machine_arm(void);
void machine_wake(struct client *client);
void machine_evict(struct client *client, long hold_ms);
void machine_kill_tree(struct client *client);
void machine_child_ended(pid_t pid, int status);
void machine_no_child_left(void);
void machine_first_packet(const struct first_packet *packet);
void machine_client_gone(struct client *client);
void machine_evicted(bool by_idleness);

/* tree.c: the end of a tree. */
void tree_open(const struct spec *spec);
void tree_kill(void);
void tree_forget(void);
void tree_await_resets(uint64_t count);

/* evict.c: the end of a running tree that nobody waits for. */
enum evicted { EVICTED, REFUSED, ENDING };
enum evicted evict(long hold_ms);
void idle_open(void);
void idle_watch(void);
void idle_touch(void);
void idle_stop(void);

/* oom.c: whether the tree met its memory limit. */
void oom_open(const struct spec *spec, void (*happened)(void));
bool oom_happened(void);

/* enter.c: CRIU in a sandbox's namespaces, for the dump. */
int enter(int argc, char **argv);

#endif
