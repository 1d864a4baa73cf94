/* What the kernel tells of processes and of want of memory, with files that a test writes. */
#include "sched/supervise/look.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "tests/unit/check_main.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];

static void put(const char *path, const char *text)
{
    rs_auto(rs_freep) char *full = rs_asprintf("%s%s", root, path);
    FILE *f;

    for (char *at = strchr(full + strlen(root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(full, 0700);
        *at = '/';
    }
    f = fopen(full, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void open_root(void)
{
    strcpy(root, "/tmp/rserve-look-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void close_root(void)
{
    rs_auto(rs_freep) char *command = rs_asprintf("rm -r %s", root);

    ck_assert_int_eq(system(command), 0);
}

/* Where the counter of the cgroup is, and what the file holds with it. */
static const struct {
    const char *self, *file, *text; /* %u: the counter */
} cgroups[] = {
    {"0::/a/b\n", "/sys/fs/cgroup/a/b/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill %u\n"},
    {"0::/../seen/from/outside\n", "/sys/fs/cgroup/memory.events",
     "oom_kill %u\noom_group_kill 0\n"},
    {"9:name=systemd:/\n4:memory:/x/y\n0::/\n", "/sys/fs/cgroup/memory/x/y/memory.oom_control",
     "oom_kill_disable 0\nunder_oom 0\noom_kill %u\n"},
    {"4:memory:/x/y\n", "/sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill %u\n"},
};

static void count(int which, unsigned here, unsigned everywhere)
{
    rs_auto(rs_freep) char *machine =
        rs_asprintf("nr_free_pages 7\noom_kill %u\npgfault 3\n", everywhere);
    const char *text = cgroups[which].text, *at = strstr(text, "%u");
    rs_auto(rs_freep) char *own = rs_asprintf("%.*s%u%s", (int)(at - text), text, here, at + 2);

    put(cgroups[which].file, own);
    put("/proc/vmstat", machine);
}

START_TEST(want_of_memory)
{
    struct rs_oom o;
    uint64_t kills = 99;

    open_root();
    put("/proc/self/cgroup", cgroups[_i].self);
    count(_i, 5, 8);
    rs_oom_init(&o, root);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_NONE); /* those before are nobody's of ours */
    count(_i, 5, 9);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_MACHINE);
    ck_assert_uint_eq(kills, 1);
    count(_i, 7, 11);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_CGROUP);
    ck_assert_uint_eq(kills, 2);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_NONE);
    count(_i, 1, 2); /* it never falls; if it does, that is no news */
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_NONE);
    rs_oom_fini(&o);
    close_root();
}
END_TEST

static const char *const strange[] = {"", "garbage", "0::", "::::\n\n:\n", "1:memory", "0::/a\n"};

START_TEST(no_counters)
{
    struct rs_oom o;
    uint64_t kills;

    open_root();
    put("/proc/self/cgroup", strange[_i]);
    put("/sys/fs/cgroup/memory.events", "oom_killer 7\nno oom_kill 3\n");
    rs_oom_init(&o, root);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_NONE);
    rs_oom_fini(&o);
    close_root();
    rs_oom_init(&o, "/no/such/place");
    ck_assert_ptr_null(o.cgroup);
    ck_assert_int_eq(rs_oom_look(&o, &kills), RS_OOM_NONE);
    rs_oom_fini(&o);
}
END_TEST

START_TEST(processes)
{
    struct rs_process_look seen = {0};
    int status;
    pid_t pid;

    ck_assert(rs_process_look(getpid(), &seen));
    ck_assert_int_eq(seen.state, 'R');
    ck_assert_uint_gt(seen.memory, 100 << 10);
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(rs_process_look(pid, &seen));
    ck_assert_int_eq(seen.state, 'T');
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(!rs_process_look(pid, &seen));
}
END_TEST

RS_CHECK_MAIN("look", tcase_add_loop_test(tc, want_of_memory, 0, RS_COUNT(cgroups));
              tcase_add_loop_test(tc, no_counters, 0, RS_COUNT(strange));
              tcase_add_test(tc, processes);)
