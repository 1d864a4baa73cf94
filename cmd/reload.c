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

enum { QUIET_MS = 200, FOLDERS_MAX = 4096, DEPTH_MAX = 32 };

#define EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ONLYDIR)

struct rs_reload {
    struct rs_io io;
    struct rs_timer quiet;
    void (*changed)(const char *file, void *arg);
    void *arg;
    char **folders; /* by watch descriptor; NULL: none */
    size_t n_folders, cap, watched;
    char *file; /* that changed; NULL: none since it was said */
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

static void watch_below(struct rs_reload *r, const char *path, int depth);

/* 0, or -1 with errno: the folder itself cannot be watched. */
static int watch(struct rs_reload *r, const char *path, int depth)
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
    watch_below(r, path, depth);
    return 0;
}

static void watch_below(struct rs_reload *r, const char *path, int depth)
{
    DIR *dir = opendir(path);

    for (struct dirent *e; dir && (e = readdir(dir));) {
        rs_auto(rs_freep) char *child = NULL;
        struct stat st;

        if (is_left_out(e->d_name))
            continue;
        child = rs_asprintf("%s/%s", path, e->d_name);
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            (void)watch(r, child, depth + 1); /* gone again, or not ours to read */
    }
    if (dir)
        closedir(dir);
}

static void note(struct rs_reload *r, const struct inotify_event *e)
{
    const char *folder = e->wd >= 0 && (size_t)e->wd < r->n_folders ? r->folders[e->wd] : NULL;
    rs_auto(rs_freep) char *path = NULL;

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
            (void)watch(r, path, 0);
    } else if (!is_source(e->name) || e->mask & IN_CREATE) {
        return; /* a file that was created is written to, too */
    }
    free(r->file);
    r->file = rs_steal(path);
    rs_timer_start(&r->quiet, r->io.loop, rs_clock_now() + QUIET_MS * RS_MS);
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

static int on_quiet(struct rs_timer *t)
{
    struct rs_reload *r = rs_container_of(t, struct rs_reload, quiet);
    rs_auto(rs_freep) char *file = rs_steal(r->file);

    if (file)
        r->changed(file, r->arg);
    return 0;
}

int rs_reload_new(struct rs_reload **ret, struct rs_loop *loop, const char *folder,
                  void (*changed)(const char *file, void *arg), void *arg, struct rs_error *err)
{
    rs_auto(rs_reload_freep) struct rs_reload *r = rs_alloc(sizeof(*r));

    r->changed = changed;
    r->arg = arg;
    r->quiet.fn = on_quiet;
    r->io.fn = on_events;
    r->io.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (r->io.fd < 0)
        return rs_error_errno(err, errno, "cannot watch files");
    if (watch(r, folder, 0) < 0)
        return rs_error_errno(err, errno, "cannot watch the folder '%s'", folder);
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
    free(r->file);
    free(r);
}
