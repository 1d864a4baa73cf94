/* Where a running rserve is looked for, and the files by which nodes are found. */
#include "cmd/remote.h"
#include "cmd/running.h"
#include "tests/unit/check_main.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/rserve-test-XXXXXX";

static void setup(void)
{
    strcpy(strrchr(folder, '-'), "-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("XDG_STATE_HOME", folder, 1);
    unsetenv("RSERVE_ADDRESS");
    unsetenv("RAY_DASHBOARD_ADDRESS");
    unsetenv("RAY_ADDRESS");
}

static void teardown(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static const struct {
    const char *given, *rserve, *dashboard, *cluster; /* NULL: not set */
    const char *base, *origin;                        /* NULL: refused */
    enum rs_remote_by by;
} places[] = {
    {NULL, NULL, NULL, NULL, "http://127.0.0.1:8265", "the default", RS_REMOTE_DEFAULT},
    {"auto", "", "auto", "local", "http://127.0.0.1:8265", "the default", RS_REMOTE_DEFAULT},
    {"http://h:1/", "http://r:2", NULL, NULL, "http://h:1", "--address", RS_REMOTE_NAMED},
    {"h:1", NULL, NULL, NULL, "http://h:1", "--address", RS_REMOTE_NAMED},
    {NULL, "r:2", "http://d:3", "c:4", "http://r:2", "$RSERVE_ADDRESS", RS_REMOTE_NAMED},
    {NULL, NULL, "http://d:3", "c:4", "http://d:3", "$RAY_DASHBOARD_ADDRESS", RS_REMOTE_NAMED},
    {NULL, NULL, NULL, "c:6379", "http://c:8265", "$RAY_ADDRESS", RS_REMOTE_NAMED},
    {NULL, NULL, NULL, "ray://c:10001", "http://c:8265", "$RAY_ADDRESS", RS_REMOTE_NAMED},
    {NULL, NULL, NULL, "http://c:1", "http://c:1", "$RAY_ADDRESS", RS_REMOTE_NAMED},
    {NULL, NULL, NULL, "c", "http://c:8265", "$RAY_ADDRESS", RS_REMOTE_NAMED},
    {"https://h:1", NULL, NULL, NULL, NULL, "--address", RS_REMOTE_NAMED},
    {"ray://h:1", NULL, NULL, NULL, NULL, "--address", RS_REMOTE_NAMED},
    {NULL, "ftp://h", NULL, NULL, NULL, "$RSERVE_ADDRESS", RS_REMOTE_NAMED},
};

static void set(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
}

START_TEST(finds)
{
    struct rs_error err = {0};
    struct rs_remote r;
    int found;

    set("RSERVE_ADDRESS", places[_i].rserve);
    set("RAY_DASHBOARD_ADDRESS", places[_i].dashboard);
    set("RAY_ADDRESS", places[_i].cluster);
    found = rs_remote_find(&r, places[_i].given, &err);
    if (!places[_i].base) {
        ck_assert_int_eq(found, -1);
        ck_assert_int_eq(err.code, RS_INVALID);
        ck_assert_msg(strstr(err.msg, places[_i].origin) == err.msg, "%s", err.msg);
        return;
    }
    ck_assert_int_eq(found, 0);
    ck_assert_str_eq(r.base, places[_i].base);
    ck_assert_str_eq(r.origin, places[_i].origin);
    ck_assert_int_eq(r.by, places[_i].by);
}
END_TEST

/* --- nodes that run ------------------------------------------------------------------------------- */

/* A process that holds the file of a node until it is killed. */
static pid_t hold(const char *kind, const char *id, double started)
{
    const struct rs_running me = {.kind = kind,
                                  .node_id = id,
                                  .dashboard = strcmp(kind, "worker") ? "127.0.0.1:9" : "",
                                  .join = strcmp(kind, "head") ? "" : "0.0.0.0:7",
                                  .http = "",
                                  .started = started};
    struct rs_running_file *file = NULL;
    struct rs_error err = {0};
    int fds[2];
    char ok;
    pid_t pid;

    ck_assert_int_eq(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        ok = rs_running_announce(&file, &me, &err) == 0 ? 'y' : 'n';
        if (write(fds[1], &ok, 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    ck_assert_int_eq(read(fds[0], &ok, 1), 1);
    ck_assert_int_eq(ok, 'y');
    close(fds[0]);
    close(fds[1]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(running)
{
    pid_t run = hold("run", "b", 3), old = hold("head", "a", 1), new = hold("head", "c", 2),
          worker = hold("worker", "d", 4);
    struct rs_running_all all;
    struct rs_error err = {0};
    struct rs_remote r;

    rs_running_read(&all);
    ck_assert_uint_eq(all.count, 4);
    ck_assert_str_eq(all.items[0].node_id, "d"); /* the newest first */
    ck_assert_int_eq(all.items[0].pid, worker);
    ck_assert_int_eq(rs_running_head(&all)->pid, new); /* a head before a newer `run` */
    rs_running_fini(&all);
    ck_assert_int_eq(rs_remote_find(&r, NULL, &err), 0);
    ck_assert_int_eq(r.by, RS_REMOTE_HEAD);
    ck_assert_str_eq(r.base, "http://127.0.0.1:9");
    /* by the address where nodes join it, at any address of the machine */
    ck_assert_int_eq(rs_remote_find_cluster(&r, "10.0.0.1:7", &err), 0);
    ck_assert_str_eq(r.base, "http://127.0.0.1:9");
    ck_assert_int_eq(rs_remote_find_cluster(&r, "10.0.0.1:8", &err), 0);
    ck_assert_str_eq(r.base, "http://10.0.0.1:8265");
    end(new);
    end(old);
    rs_running_read(&all);
    ck_assert_uint_eq(all.count, 2);
    ck_assert_int_eq(rs_running_head(&all)->pid, run);
    rs_running_fini(&all);
    ck_assert_int_eq(rs_remote_find(&r, "", &err), 0);
    ck_assert_int_eq(r.by, RS_REMOTE_RUN);
    end(run);
    rs_running_read(&all);
    ck_assert_uint_eq(all.count, 1); /* a worker has no REST API */
    ck_assert_ptr_null(rs_running_head(&all));
    rs_running_fini(&all);
    end(worker);
    rs_running_read(&all);
    ck_assert_uint_eq(all.count, 0);
    rs_running_fini(&all);
}
END_TEST

START_TEST(withdrawn)
{
    const struct rs_running me = {0, "head", "x", "127.0.0.1:9", "", "", 1};
    struct rs_running_file *file = NULL;
    struct rs_error err = {0};
    char path[200];
    struct stat st;

    snprintf(path, sizeof(path), "%s/rserve/instances/x.json", folder);
    ck_assert_int_eq(rs_running_announce(&file, &me, &err), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    rs_running_withdraw(file);
    ck_assert_int_eq(stat(path, &st), -1);
    rs_running_withdraw(NULL);
}
END_TEST

RS_CHECK_MAIN("remote", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_loop_test(tc, finds, 0, RS_COUNT(places)); tcase_add_test(tc, running);
              tcase_add_test(tc, withdrawn);)
