#include "cmd/reload.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/map.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUIET_MS = 200, LONGEST_MS = 2000, FOLDERS_MAX = 4096, DEPTH_MAX = 32, FILES_MAX = 32 };

#define EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ONLYDIR)

struct rs_reload {
    struct rs_io io;
    struct rs_timer quiet;
    void (*changed)(const struct rs_reload_change *change, void *arg);
    void *arg;
    char **folders; /* by watch descriptor; NULL: none */
    size_t n_folders, cap, watched;
    char *files[FILES_MAX]; /* that changed since it was said */
    size_t n_files;
    bool more;
    int64_t since; /* the first of them did */
    bool full;
};

static bool is_source(const char *name)
{
    static const char *const endings[] = {".py", ".pyi", ".yaml", ".yml", ".json", ".toml"};
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && name[0] != '.' && i < RS_COUNT(endings); i++)
        if (strcmp(dot, endings[i]) == 0)
            return true;
    return false;
}

static bool is_left_out(const char *name)
{
    return name[0] == '.' || strcmp(name, "__pycache__") == 0 ||
           strcmp(name, "node_modules") == 0 || strcmp(name, "site-packages") == 0;
}

/* Remembers the folder of a watch. Takes `path`. */
static void keep(struct rs_reload *r, int watch, char *path)
{
    size_t at = (size_t)watch, had = r->n_folders;

    r->folders = rs_grow(r->folders, &r->cap, at + 1, sizeof(*r->folders));
    if (at >= had) {
        memset(r->folders + had, 0, (at + 1 - had) * sizeof(*r->folders));
        r->n_folders = at + 1;
    }
    r->watched += r->folders[at] == NULL;
    free(r->folders[at]);
    r->folders[at] = path;
}

/* Takes `path`. */
static void touched(struct rs_reload *r, char *path)
{
    rs_auto(rs_freep) char *file = path;
    int64_t now = rs_clock_now(), at = now + QUIET_MS * RS_MS;

    if (r->n_files == 0)
        r->since = now;
    if (at > r->since + LONGEST_MS * RS_MS)
        at = r->since + LONGEST_MS * RS_MS;
    rs_timer_start(&r->quiet, r->io.loop, at);
    for (size_t i = 0; i < r->n_files; i++)
        if (strcmp(r->files[i], file) == 0)
            return;
    if (r->n_files < FILES_MAX)
        r->files[r->n_files++] = rs_steal(file);
    else
        r->more = true;
}

static void watch_below(struct rs_reload *r, const char *path, int depth, bool late);

/* 0, or -1 with errno: the folder itself cannot be watched. */
static int watch(struct rs_reload *r, const char *path, int depth, bool late)
{
    int id;

    if (r->watched >= FOLDERS_MAX || depth > DEPTH_MAX) {
        if (!r->full)
            rs_log_warn("not all folders are watched for changes", "folder=\"%s\" most=%d", path,
                        FOLDERS_MAX);
        r->full = true;
        return 0;
    }
    id = inotify_add_watch(r->io.fd, path, EVENTS);
    if (id < 0)
        return -1;
    keep(r, id, rs_strdup(path));
    watch_below(r, path, depth, late);
    return 0;
}

/* `late`: the folder is new, and files may have come into it before it was watched. */
static void watch_below(struct rs_reload *r, const char *path, int depth, bool late)
{
    DIR *dir = opendir(path);

    for (struct dirent *e; dir && (e = readdir(dir));) {
        rs_auto(rs_freep) char *child = NULL;
        struct stat st;

        if (is_left_out(e->d_name))
            continue;
        child = rs_asprintf("%s/%s", path, e->d_name);
        if (lstat(child, &st) < 0)
            continue; /* gone again */
        if (S_ISDIR(st.st_mode))
            (void)watch(r, child, depth + 1, late); /* perhaps not ours to read */
        else if (late && is_source(e->d_name))
            touched(r, rs_steal(child));
    }
    if (dir)
        closedir(dir);
}

/* A file that was created is written to, too, and that is what counts; a link is there at once. */
static bool is_whole(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && (S_ISLNK(st.st_mode) || st.st_nlink > 1);
}

static void note(struct rs_reload *r, const struct inotify_event *e)
{
    const char *folder = e->wd >= 0 && (size_t)e->wd < r->n_folders ? r->folders[e->wd] : NULL;
    rs_auto(rs_freep) char *path = NULL;

    if (e->mask & IN_Q_OVERFLOW) { /* more than could be told: anything may have changed */
        r->more = true;
        touched(r, rs_strdup("(many)"));
        return;
    }
    if (e->mask & IN_IGNORED && folder) { /* the folder is gone */
        free(r->folders[e->wd]);
        r->folders[e->wd] = NULL;
        r->watched--;
        return;
    }
    if (!folder || e->len == 0 || is_left_out(e->name))
        return;
    path = rs_asprintf("%s/%s", folder, e->name);
    if (e->mask & IN_ISDIR) {
        if (e->mask & (IN_CREATE | IN_MOVED_TO))
            (void)watch(r, path, 0, true);
    } else if (is_source(e->name) && (!(e->mask & IN_CREATE) || is_whole(path))) {
        touched(r, rs_steal(path));
    }
}

static int on_events(struct rs_io *io, uint32_t events)
{
    struct rs_reload *r = rs_container_of(io, struct rs_reload, io);
    _Alignas(struct inotify_event) char buf[16384];
    ssize_t n;

    (void)events;
    while ((n = read(io->fd, buf, sizeof(buf))) > 0) {
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)at;

            note(r, e);
            at += sizeof(*e) + e->len;
        }
    }
    return 0;
}

static void forget(struct rs_reload *r)
{
    for (size_t i = 0; i < r->n_files; i++)
        free(r->files[i]);
    r->n_files = 0;
    r->more = false;
}

static int on_quiet(struct rs_timer *t)
{
    struct rs_reload *r = rs_container_of(t, struct rs_reload, quiet);
    const struct rs_reload_change change = {(const char *const *)r->files, r->n_files, r->more};

    r->changed(&change, r->arg);
    forget(r);
    return 0;
}

int rs_reload_new(struct rs_reload **ret, struct rs_loop *loop, const char *const *folders,
                  void (*changed)(const struct rs_reload_change *change, void *arg), void *arg,
                  struct rs_error *err)
{
    rs_auto(rs_reload_freep) struct rs_reload *r = rs_alloc(sizeof(*r));

    r->changed = changed;
    r->arg = arg;
    r->quiet.fn = on_quiet;
    r->io.fn = on_events;
    r->io.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (r->io.fd < 0)
        return rs_error_errno(err, errno, "cannot watch files");
    for (; *folders; folders++)
        if (watch(r, *folders, 0, false) < 0)
            return rs_error_errno(err, errno, "cannot watch the folder '%s'", *folders);
    if (rs_io_start(&r->io, loop, EPOLLIN, err) < 0)
        return -1;
    *ret = rs_steal(r);
    return 0;
}

void rs_reload_free(struct rs_reload *r)
{
    if (!r)
        return;
    rs_timer_stop(&r->quiet);
    rs_io_stop(&r->io);
    rs_closep(&r->io.fd);
    for (size_t i = 0; i < r->n_folders; i++)
        free(r->folders[i]);
    free(r->folders);
    forget(r);
    free(r);
}
