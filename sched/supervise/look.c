#include "sched/supervise/look.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The begin of a file, as text. False: it cannot be read. */
static bool read_text(const char *path, char *buf, size_t size)
{
    rs_auto(rs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0;
    ssize_t n = 1;

    if (fd < 0)
        return false;
    while (at + 1 < size && (n = read(fd, buf + at, size - 1 - at)) > 0)
        at += (size_t)n;
    buf[at] = '\0';
    return n >= 0 && at > 0;
}

enum { STATE = 3, RSS = 24 }; /* fields of /proc/PID/stat, from 1 */

/* The field `n` of a line that begins with field `first`. "": there are fewer. */
static const char *field(const char *line, int first, int n)
{
    line += strspn(line, " ");
    for (; first < n && *line; first++) {
        line += strcspn(line, " ");
        line += strspn(line, " ");
    }
    return line;
}

bool rs_process_look(pid_t pid, struct rs_process_look *ret)
{
    char path[40], text[1024];
    const char *at;
    long long pages;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_text(path, text, sizeof(text)))
        return false;
    at = strrchr(text, ')'); /* the name may hold anything */
    if (!at || !*field(at + 1, STATE, STATE))
        return false;
    pages = strtoll(field(at + 1, STATE, RSS), NULL, 10);
    ret->state = *field(at + 1, STATE, STATE);
    ret->memory = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    return true;
}

/* --- want of memory ------------------------------------------------------------------------------ */

/* The number behind a word at the begin of a line. False: there is no such line. */
static bool counter(const char *path, uint64_t *ret)
{
    static const char word[] = "oom_kill ";
    char *text, *at;
    bool found = false;

    if (!path)
        return false;
    text = rs_alloc(64 << 10); /* /proc/vmstat is long */
    if (read_text(path, text, 64 << 10)) {
        at = strncmp(text, word, sizeof(word) - 1) == 0 ? text : strstr(text, "\noom_kill ");
        if (at) {
            *ret = strtoull(at + (*at == '\n') + sizeof(word) - 1, NULL, 10);
            found = true;
        }
    }
    free(text);
    return found;
}

/* The path behind a line of /proc/self/cgroup: "0::/a/b" (v2), "4:memory:/a/b" (v1). New; NULL: none. */
static char *cgroup_of(const char *text, const char *controller)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *a = strchr(line, ':'), *b = a ? strchr(a + 1, ':') : NULL;

        if (b && (size_t)(b - a - 1) == strlen(controller) &&
            memcmp(a + 1, controller, strlen(controller)) == 0)
            return rs_strndup(b + 1, strcspn(b + 1, "\n"));
    }
    return NULL;
}

/* The first of these that has a counter. Takes them. */
static char *first_of(char *const *paths, size_t n)
{
    char *found = NULL;
    uint64_t value;

    for (size_t i = 0; i < n; i++) {
        if (!found && counter(paths[i], &value))
            found = paths[i];
        else
            free(paths[i]);
    }
    return found;
}

void rs_oom_init(struct rs_oom *o, const char *root)
{
    rs_auto(rs_freep) char *self = rs_asprintf("%s/proc/self/cgroup", root);
    rs_auto(rs_freep) char *v1 = NULL, *v2 = NULL;
    char text[4096] = "";

    (void)read_text(self, text, sizeof(text));
    v2 = cgroup_of(text, "");
    v1 = cgroup_of(text, "memory");
    /* In a container the path is seen from outside, and its own cgroup is at the top. */
    char *paths[] = {
        rs_asprintf("%s/sys/fs/cgroup%s/memory.events", root, v2 ? v2 : ""),
        rs_asprintf("%s/sys/fs/cgroup/memory.events", root),
        rs_asprintf("%s/sys/fs/cgroup/memory%s/memory.oom_control", root, v1 ? v1 : ""),
        rs_asprintf("%s/sys/fs/cgroup/memory/memory.oom_control", root),
    };
    char *machine = rs_asprintf("%s/proc/vmstat", root);

    *o = (struct rs_oom){.cgroup = first_of(paths, RS_COUNT(paths)),
                         .machine = first_of(&machine, 1)};
    (void)counter(o->cgroup, &o->in_cgroup);
    (void)counter(o->machine, &o->on_machine);
}

void rs_oom_fini(struct rs_oom *o)
{
    free(o->cgroup);
    free(o->machine);
    *o = (struct rs_oom){0};
}

static uint64_t risen(const char *path, uint64_t *last)
{
    uint64_t now = *last, by;

    (void)counter(path, &now);
    by = now > *last ? now - *last : 0;
    *last = now;
    return by;
}

enum rs_oom_seen rs_oom_look(struct rs_oom *o, uint64_t *kills)
{
    uint64_t here = risen(o->cgroup, &o->in_cgroup), anywhere = risen(o->machine, &o->on_machine);

    *kills = here ? here : anywhere;
    return here ? RS_OOM_CGROUP : anywhere ? RS_OOM_MACHINE : RS_OOM_NONE;
}
