/* Real children: what they are given, how their end is told, that none is left. */
#include "sched/supervise/spawn.h"

#include "core/base/clock.h"
#include "core/base/list.h"
#include "sched/supervise/keeper.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE (10 * RS_SEC)

static struct rs_loop *loop;

static void setup(void)
{
    ck_assert_int_eq(rs_loop_new(&loop, NULL), 0);
}

static void teardown(void)
{
    rs_loop_free(loop);
}

struct kid {
    struct rs_child child;
    int status; /* -1: runs */
};

static void on_exit_of_kid(struct rs_child *child, int status)
{
    rs_container_of(child, struct kid, child)->status = status;
}

static void turn_until(const int *status)
{
    int64_t end = rs_clock_now() + PATIENCE;

    while (*status < 0 && rs_clock_now() < end)
        ck_assert_int_eq(rs_loop_turn(loop, 100 * RS_MS), 0);
    ck_assert_msg(*status >= 0, "the child did not end");
}

static int start(struct kid *k, const char *const *argv, const struct rs_spawn *more,
                 struct rs_error *err)
{
    struct rs_spawn spec = more ? *more : (struct rs_spawn){0};

    spec.argv = argv;
    *k = (struct kid){.child = {.on_exit = on_exit_of_kid}, .status = -1};
    return rs_spawn(&k->child, loop, &spec, err);
}

static int run(const char *script, const struct rs_spawn *more)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct rs_error err = {0};
    struct kid k;

    ck_assert_msg(start(&k, argv, more, &err) == 0, "%s", err.msg);
    ck_assert_int_gt(k.child.pid, 0);
    turn_until(&k.status);
    ck_assert_int_eq(k.child.pid, 0);
    return k.status;
}

static const struct {
    const char *script;
    int status;
    const char *text;
} ends[] = {
    {"exit 0", 0, "exited with status 0"},
    {"exit 3", 3 << 8, "exited with status 3"},
    {"kill -9 $$", SIGKILL, "was killed by SIGKILL (9)"},
    {"kill -TERM $$", SIGTERM, "was killed by SIGTERM (15)"},
    /* signals are as a new program expects them, whatever we ignore or block */
    {"kill -PIPE $$; exit 1", SIGPIPE, "was killed by SIGPIPE (13)"},
};

START_TEST(end_is_told)
{
    char text[64];
    sigset_t block;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    int status = run(ends[_i].script, NULL);

    ck_assert_int_eq(status, ends[_i].status);
    rs_exit_text(status, text, sizeof(text));
    ck_assert_str_eq(text, ends[_i].text);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

static const struct {
    const char *argv0, *cwd, *says;
} refusals[] = {
    {"/no/such/program", NULL, "cannot execute '/no/such/program': No such file or directory"},
    {"rserve-no-such-program", NULL, "not found in PATH"},
    {"/dev/null", NULL, "cannot execute '/dev/null': Permission denied"},
    {"/bin/true", "/no/such/folder", "cannot enter the folder '/no/such/folder'"},
};

START_TEST(refusals_reach_the_parent)
{
    const char *argv[] = {refusals[_i].argv0, NULL};
    struct rs_spawn spec = {.cwd = refusals[_i].cwd};
    struct rs_error err = {0};
    struct kid k;

    ck_assert_int_eq(start(&k, argv, &spec, &err), -1);
    ck_assert_msg(strstr(err.msg, refusals[_i].says) != NULL, "%s", err.msg);
    ck_assert_int_eq(k.child.pid, 0);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(missing_interpreter_is_named)
{
    char path[] = "/tmp/rserve-test-XXXXXX";
    int fd = mkstemp(path);
    const char *argv[] = {path, NULL};
    struct rs_error err = {0};
    struct kid k;

    ck_assert_int_eq(write(fd, "#!/no/such/interpreter\n", 23), 23);
    ck_assert_int_eq(fchmod(fd, 0700), 0);
    close(fd);
    ck_assert_int_eq(start(&k, argv, NULL, &err), -1);
    ck_assert_msg(strstr(err.msg, "the interpreter in its first line is missing"), "%s", err.msg);
    unlink(path);
}
END_TEST

/* Exactly the descriptors that were named, under the numbers that were asked for; they may cross. */
START_TEST(descriptors_are_placed)
{
    int a[2], b[2];
    char got[64] = "";
    const char *env[] = {"PATH=/usr/bin:/bin", "WORD=hello", NULL};

    ck_assert_int_eq(pipe(a), 0);
    ck_assert_int_eq(pipe(b), 0);
    ck_assert_int_eq(dup2(a[0], 77), 77); /* not close-on-exec, and not named */
    const struct rs_spawn_fd fds[] = {
        {.fd = a[1], .as = b[1]}, {.fd = b[1], .as = a[1]}, {.fd = a[1], .as = 1}};
    struct rs_spawn spec = {.env = env, .cwd = "/", .fds = fds, .n_fds = 3};
    rs_auto(rs_freep) char *script = NULL;

    ck_assert_int_gt(asprintf(&script,
                              "echo $WORD $PWD; echo crossed >&%d;"
                              "for f in /proc/self/fd/*; do echo ${f##*/}; done >&%d;"
                              "[ -z \"$HOME\" ]",
                              a[1], b[1]),
                     0);
    ck_assert_int_eq(run(script, &spec), 0);
    close(a[1]);
    close(b[1]);
    ck_assert_int_gt(read(b[0], got, sizeof(got) - 1), 0); /* b's number held a's pipe, a's b's */
    ck_assert_str_eq(got, "crossed\n");
    char list[256] = "";
    size_t have = 0;
    for (ssize_t n; (n = read(a[0], list + have, sizeof(list) - 1 - have)) > 0;)
        have += (size_t)n;
    ck_assert_msg(strncmp(list, "hello /\n", 8) == 0, "%s", list);
    unsigned open_fds = 0;
    for (const char *p = list + 8; *p; p++)
        open_fds += *p == '\n';
    ck_assert_int_le((int)open_fds, 7); /* 0, 1, 2, the two, and two of the shell's own */
    ck_assert_ptr_null(strstr(list, "\n77\n"));
    close(77);
    close(a[0]);
    close(b[0]);
}
END_TEST

/* What a child leaves behind in its group dies with it. */
START_TEST(group_dies_with_its_leader)
{
    int p[2];
    char byte;

    ck_assert_int_eq(pipe(p), 0);
    const struct rs_spawn_fd fds[] = {{.fd = p[1], .as = 5}};
    struct rs_spawn spec = {.fds = fds, .n_fds = 1};

    ck_assert_int_eq(run("sleep 60 & exit 0", &spec), 0);
    close(p[1]);
    ck_assert_int_eq(read(p[0], &byte, 1), 0); /* hang-up: the sleeper is gone too */
    close(p[0]);
}
END_TEST

START_TEST(kill_reaches_the_group)
{
    const char *argv[] = {"/bin/sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", NULL};
    struct kid k;

    ck_assert_int_eq(start(&k, argv, NULL, NULL), 0);
    rs_child_kill(&k.child, SIGKILL);
    turn_until(&k.status);
    ck_assert_int_eq(k.status, SIGKILL);
    rs_child_kill(&k.child, SIGKILL); /* gone: nothing happens */
}
END_TEST

/* A middle process forks a grandchild and ends: the grandchild becomes ours, and is watched. */
START_TEST(foreign_children_are_adopted)
{
    char text[32] = "";
    struct kid middle, orphan = {.child = {.on_exit = on_exit_of_kid}, .status = -1};
    int p[2];

    ck_assert_int_eq(rs_subreaper(NULL), 0);
    ck_assert_int_eq(pipe(p), 0);
    /* The group of the middle process is killed when it ends, so the orphan leaves it. */
    const char *setsid_argv[] = {
        "/bin/sh", "-c", "setsid sh -c 'echo $$ >&5; sleep 0.2; exit 7' & sleep 0.05", NULL};
    const struct rs_spawn_fd fds[] = {{.fd = p[1], .as = 5}};
    struct rs_spawn spec = {.fds = fds, .n_fds = 1};

    ck_assert_int_eq(start(&middle, setsid_argv, &spec, NULL), 0);
    ck_assert_int_gt(read(p[0], text, sizeof(text) - 1), 0);
    ck_assert_int_eq(rs_child_adopt(&orphan.child, loop, (pid_t)atoi(text), NULL), 0);
    turn_until(&middle.status);
    turn_until(&orphan.status);
    ck_assert_int_eq(orphan.status, 7 << 8);
    ck_assert_int_eq(rs_child_adopt(&orphan.child, loop, 1, NULL), -1);
    close(p[0]);
    close(p[1]);
}
END_TEST

START_TEST(unwatched_children_are_reaped)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
    ck_assert_uint_eq(rs_reap(), 1);
    ck_assert_uint_eq(rs_reap(), 0);
}
END_TEST

/* kill -9 of the parent takes the child with it. */
START_TEST(child_dies_with_its_parent)
{
    int p[2];
    char text[32] = "", byte;
    pid_t parent;

    ck_assert_int_eq(pipe(p), 0);
    parent = fork();
    if (parent == 0) {
        const char *argv[] = {"/bin/sh", "-c", "echo up >&5; exec sleep 60", NULL};
        const struct rs_spawn_fd fds[] = {{.fd = p[1], .as = 5}};
        struct rs_spawn spec = {.fds = fds, .n_fds = 1};
        struct kid k;

        start(&k, argv, &spec, NULL);
        pause();
        _exit(0);
    }
    close(p[1]);
    ck_assert_int_eq(read(p[0], text, sizeof(text)), 3);
    kill(parent, SIGKILL);
    ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
    while (read(p[0], &byte, 1) > 0) /* hang-up: nobody holds the write end any more */
        ;
    close(p[0]);
}
END_TEST

START_TEST(environments)
{
    struct rs_env e = {0};
    char *from[] = {(char[]){"A=1"}, (char[]){"AB=2"}, (char[]){"junk"}, NULL};

    ck_assert_ptr_null(rs_env_list(&e)[0]);
    rs_env_copy(&e, from);
    rs_env_set(&e, "A", "3");
    rs_env_put(&e, "C=x=y");
    ck_assert_str_eq(rs_env_get(&e, "A"), "3");
    ck_assert_str_eq(rs_env_get(&e, "AB"), "2");
    ck_assert_str_eq(rs_env_get(&e, "C"), "x=y");
    ck_assert_ptr_null(rs_env_get(&e, "junk"));
    rs_env_set(&e, "A", NULL);
    rs_env_set(&e, "A", NULL);
    ck_assert_ptr_null(rs_env_get(&e, "A"));
    ck_assert_str_eq(rs_env_list(&e)[0], "AB=2");
    ck_assert_str_eq(rs_env_list(&e)[1], "C=x=y");
    ck_assert_ptr_null(rs_env_list(&e)[2]);
    rs_env_fini(&e);
}
END_TEST

/* --- keeper --- */

static char ended[64], printed[256];
static int end_status;

static void on_end(const char *id, int status, const char *output, void *arg)
{
    snprintf(ended, sizeof(ended), "%s", id);
    snprintf(printed, sizeof(printed), "%s", output);
    end_status = status;
}

static struct rs_keeper *new_keeper(struct rs_capture_hub **hub)
{
    static const struct rs_keeper_ops ops = {.on_exit = on_end};
    struct rs_capture_conf conf = {0};
    struct rs_keeper *k = NULL;

    end_status = -1;
    ck_assert_int_eq(rs_capture_hub_new(hub, loop, &conf, NULL), 0);
    ck_assert_int_eq(rs_keeper_new(&k, loop, *hub, &ops, NULL, NULL), 0);
    return k;
}

START_TEST(keeper_names_processes)
{
    struct rs_capture_hub *hub = NULL;
    struct rs_keeper *k = new_keeper(&hub);
    const char *argv[] = {"/bin/sh", "-c", "echo out; echo last words >&2; exit 4", NULL};
    struct rs_spawn spec = {.argv = argv};
    struct rs_error err = {0};
    pid_t pid = 0;

    ck_assert_int_eq(rs_keeper_spawn(k, "r1", "a#b#r1", &spec, &pid, &err), 0);
    ck_assert_int_eq(rs_keeper_spawn(k, "r1", "a#b#r1", &spec, &pid, &err), -1);
    ck_assert_str_eq(err.msg, "there is a process 'r1' already");
    ck_assert_uint_eq(rs_keeper_count(k), 1);
    turn_until(&end_status);
    ck_assert_int_eq(end_status, 4 << 8);
    ck_assert_str_eq(ended, "r1");
    ck_assert_str_eq(printed, "last words\n");
    ck_assert_uint_eq(rs_keeper_count(k), 0);
    rs_keeper_kill(k, "r1", SIGKILL);
    rs_keeper_free(k);
    rs_capture_hub_free(hub);
}
END_TEST

START_TEST(keeper_leaves_nothing)
{
    struct rs_capture_hub *hub = NULL;
    struct rs_keeper *k = new_keeper(&hub);
    const char *argv[] = {"/bin/sh", "-c", "sleep 60", NULL};
    const char *bad[] = {"/no/such", NULL};
    struct rs_spawn spec = {.argv = argv};
    struct rs_spawn refused = {.argv = bad};
    int out = -1, error = -1;
    pid_t pid = 0;

    ck_assert_int_eq(rs_keeper_spawn(k, "r1", "a#b#r1", &spec, &pid, NULL), 0);
    ck_assert_int_eq(rs_keeper_spawn(k, "r2", "a#b#r2", &refused, &pid, NULL), -1);
    ck_assert_int_eq(rs_keeper_expect(k, "r3", "a#b#r3", &out, &error, NULL), 0);
    close(out);
    close(error);
    rs_keeper_forget(k, "r3");
    ck_assert_int_eq(rs_keeper_adopt(k, "r3", pid, NULL), -1);
    rs_keeper_free(k);
    rs_capture_hub_free(hub);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* neither running nor a zombie */
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

RS_CHECK_MAIN("spawn", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_loop_test(tc, end_is_told, 0, RS_COUNT(ends));
              tcase_add_loop_test(tc, refusals_reach_the_parent, 0, RS_COUNT(refusals));
              tcase_add_test(tc, missing_interpreter_is_named);
              tcase_add_test(tc, descriptors_are_placed);
              tcase_add_test(tc, group_dies_with_its_leader);
              tcase_add_test(tc, kill_reaches_the_group);
              tcase_add_test(tc, foreign_children_are_adopted);
              tcase_add_test(tc, unwatched_children_are_reaped);
              tcase_add_test(tc, child_dies_with_its_parent); tcase_add_test(tc, environments);
              tcase_add_test(tc, keeper_names_processes);
              tcase_add_test(tc, keeper_leaves_nothing);)
