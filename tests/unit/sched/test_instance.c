/* Nothing survives: processes with the mark die with the one that guards them. */
#include "sched/supervise/guard.h"

#include "core/base/clock.h"
#include "sched/supervise/statedir.h"
#include "tests/unit/check_main.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char instance[64];

static void setup(void)
{
    snprintf(instance, sizeof(instance), "test-%d-%lld", (int)getpid(), (long long)rs_clock_now());
}

/* A process that nothing but its mark ties to us: own session, signals ignored. Its death is seen
 * by the hang-up of `held`. */
static void start_orphan(const char *mark, int held, int ready)
{
    char assignment[128];
    pid_t middle = fork();

    if (middle == 0) {
        setsid();
        if (fork() == 0) {
            snprintf(assignment, sizeof(assignment), RS_INSTANCE_ENV "=%s", mark);
            char *env[] = {assignment, NULL};
            char *argv[] = {(char[]){"sh"}, (char[]){"-c"},
                            (char[]){"trap '' TERM HUP INT; echo >&6; exec sleep 60"}, NULL};

            dup2(held, 5);
            dup2(ready, 6);
            execve("/bin/sh", argv, env);
            _exit(127);
        }
        _exit(0);
    }
    ck_assert_int_eq(waitpid(middle, NULL, 0), middle);
}

static void await_ready(int fd)
{
    char byte;

    ck_assert_int_eq(read(fd, &byte, 1), 1);
}

static bool hangs_up(int fd, int64_t patience)
{
    int64_t end = rs_clock_now() + patience;
    char byte;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (rs_clock_now() < end) {
        if (read(fd, &byte, 1) == 0)
            return true;
        usleep(2000);
    }
    return false;
}

START_TEST(sweep_finds_the_mark_only)
{
    int held[2], other[2], ready[2];
    char longer[80];

    snprintf(longer, sizeof(longer), "%sx", instance);
    ck_assert_int_eq(pipe2(held, O_CLOEXEC) | pipe2(other, O_CLOEXEC) | pipe2(ready, O_CLOEXEC), 0);
    start_orphan(instance, held[1], ready[1]);
    start_orphan(longer, other[1], ready[1]);
    await_ready(ready[0]);
    await_ready(ready[0]);
    close(held[1]);
    close(other[1]);
    ck_assert_uint_eq(rs_guard_sweep(instance, 0), 1);
    ck_assert(hangs_up(held[0], 5 * RS_SEC));
    ck_assert(!hangs_up(other[0], 50 * RS_MS));
    ck_assert_uint_ge(rs_guard_sweep(longer, 0), 1);
    ck_assert(hangs_up(other[0], 5 * RS_SEC));
    ck_assert_uint_eq(rs_guard_sweep(instance, 0), 0);
}
END_TEST

START_TEST(guard_sweeps_when_its_owner_is_killed)
{
    int held[2], ready[2], guard_pid[2];
    pid_t owner, guard = 0;

    ck_assert_int_eq(pipe2(held, O_CLOEXEC) | pipe2(ready, O_CLOEXEC) | pipe2(guard_pid, O_CLOEXEC),
                     0);
    owner = fork();
    if (owner == 0) {
        struct rs_guard *g = NULL;
        pid_t pid;

        if (rs_guard_new(&g, instance, NULL) < 0)
            _exit(1);
        pid = rs_guard_pid(g);
        if (write(guard_pid[1], &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        pause();
        _exit(0);
    }
    start_orphan(instance, held[1], ready[1]);
    await_ready(ready[0]);
    close(held[1]);
    ck_assert_int_eq(read(guard_pid[0], &guard, sizeof(guard)), (ssize_t)sizeof(guard));
    ck_assert(!hangs_up(held[0], 20 * RS_MS));
    kill(guard, SIGTERM); /* it cannot be talked out of it */
    kill(owner, SIGKILL);
    ck_assert_int_eq(waitpid(owner, NULL, 0), owner);
    ck_assert(hangs_up(held[0], 10 * RS_SEC));
}
END_TEST

START_TEST(guard_ends_on_a_normal_stop)
{
    struct rs_guard *g = NULL;
    int held[2], ready[2];
    pid_t pid;

    ck_assert_int_eq(pipe2(held, O_CLOEXEC) | pipe2(ready, O_CLOEXEC), 0);
    ck_assert_int_eq(rs_guard_new(&g, instance, NULL), 0);
    pid = rs_guard_pid(g);
    start_orphan(instance, held[1], ready[1]);
    await_ready(ready[0]);
    close(held[1]);
    rs_guard_free(g);
    ck_assert(hangs_up(held[0], 5 * RS_SEC));
    ck_assert_int_eq(kill(pid, 0), -1); /* reaped */
    ck_assert_int_eq(errno, ESRCH);
    rs_guard_free(NULL);
}
END_TEST

/* --- the state folder --- */

static void remove_tree(const char *path)
{
    char command[256];

    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(two_instances_share_a_base)
{
    char base[] = "/tmp/rserve-test-XXXXXX";
    struct rs_statedir *a = NULL, *b = NULL, *c = NULL;
    char want[128];
    struct stat st;

    ck_assert_ptr_nonnull(mkdtemp(base));
    ck_assert_int_eq(rs_statedir_open(&a, base, "main", false, NULL), 0);
    ck_assert_int_eq(rs_statedir_open(&b, base, "main", false, NULL), 0);
    snprintf(want, sizeof(want), "%s/main", base);
    ck_assert_str_eq(rs_statedir_path(a), want);
    snprintf(want, sizeof(want), "%s/main-2", base);
    ck_assert_str_eq(rs_statedir_path(b), want);
    ck_assert_int_eq(stat(rs_statedir_logs(a), &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0700);
    rs_statedir_free(a);
    ck_assert_int_eq(rs_statedir_open(&c, base, "main", false, NULL), 0); /* free again */
    snprintf(want, sizeof(want), "%s/main", base);
    ck_assert_str_eq(rs_statedir_path(c), want);
    rs_statedir_free(b);
    rs_statedir_free(c);
    remove_tree(base);
}
END_TEST

START_TEST(files_are_put_once)
{
    char base[] = "/tmp/rserve-test-XXXXXX";
    struct rs_statedir *s = NULL;
    char *first = NULL, *again = NULL, *other = NULL;
    struct stat one, two;

    ck_assert_ptr_nonnull(mkdtemp(base));
    ck_assert_int_eq(rs_statedir_open(&s, base, "main", false, NULL), 0);
    ck_assert_int_eq(rs_statedir_put(s, "rserve.zip", "content", 7, &first, NULL), 0);
    ck_assert_int_eq(stat(first, &one), 0);
    ck_assert_int_eq(one.st_size, 7);
    ck_assert_str_eq(first + strlen(first) - 4, ".zip");
    ck_assert_int_eq(rs_statedir_put(s, "rserve.zip", "content", 7, &again, NULL), 0);
    ck_assert_str_eq(first, again);
    ck_assert_int_eq(stat(first, &two), 0);
    ck_assert_uint_eq(one.st_ino, two.st_ino); /* not written again */
    ck_assert_int_eq(truncate(first, 3), 0);   /* a crash or a full disk long ago */
    free(again);
    ck_assert_int_eq(rs_statedir_put(s, "rserve.zip", "content", 7, &again, NULL), 0);
    ck_assert_int_eq(stat(first, &two), 0);
    ck_assert_int_eq(two.st_size, 7);
    ck_assert_int_eq(rs_statedir_put(s, "rserve.zip", "CONTENT", 7, &other, NULL), 0);
    ck_assert_str_ne(first, other);
    ck_assert_int_ne(stat(first, &one), 0); /* of a binary that was replaced */
    free(first);
    free(again);
    free(other);
    rs_statedir_free(s);
    remove_tree(base);
}
END_TEST

START_TEST(unusable_bases_are_named)
{
    struct rs_statedir *s = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_statedir_open(&s, "/dev/null", "main", false, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "/dev/null"));
    ck_assert_int_eq(rs_statedir_open(&s, "/proc/nothing/here", "main", false, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "/proc/nothing"));
    ck_assert_ptr_null(s);
}
END_TEST

RS_CHECK_MAIN("instance", tcase_add_checked_fixture(tc, setup, NULL);
              tcase_add_test(tc, sweep_finds_the_mark_only);
              tcase_add_test(tc, guard_sweeps_when_its_owner_is_killed);
              tcase_add_test(tc, guard_ends_on_a_normal_stop);
              tcase_add_test(tc, two_instances_share_a_base);
              tcase_add_test(tc, files_are_put_once); tcase_add_test(tc, unusable_bases_are_named);)
