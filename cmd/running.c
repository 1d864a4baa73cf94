#include "cmd/running.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "sched/supervise/statedir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FOLDER "instances"

enum { FILE_MAX = 4096 };

struct rs_running_file {
    char *path;
    int fd; /* holds the lock */
};

static int write_file(int fd, const struct rs_running *me, const char *path, struct rs_error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    rs_auto(rs_json_decrefp) json_t *value = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:f}", "kind", me->kind, "node_id", me->node_id, "dashboard",
        me->dashboard, "join", me->join, "http", me->http, "started", me->started);
    rs_auto(rs_freep) char *text = rs_json_dump(value);
    size_t n = strlen(text);

    if (fcntl(fd, F_SETLK, &lock) < 0)
        return rs_error_errno(err, errno, "cannot lock '%s'", path);
    if (n > FILE_MAX || write(fd, text, n) != (ssize_t)n)
        return rs_error_errno(err, errno, "cannot write '%s'", path);
    return 0;
}

int rs_running_announce(struct rs_running_file **ret, const struct rs_running *me,
                        struct rs_error *err)
{
    rs_auto(rs_freep) char *dir = NULL, *path = NULL, *temp = NULL;
    rs_auto(rs_closep) int fd = -1;
    struct rs_running_file *file;

    if (rs_statedir_folder(FOLDER, &dir, err) < 0)
        return -1;
    path = rs_asprintf("%s/%s.json", dir, me->node_id);
    temp = rs_asprintf("%s/.%s", dir, me->node_id);
    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return rs_error_errno(err, errno, "cannot write '%s'", temp);
    /* The lock is there before the name is: nobody takes it for a left-over. */
    if (write_file(fd, me, temp, err) < 0 || rename(temp, path) < 0) {
        if (!err->msg[0])
            rs_error_errno(err, errno, "cannot write '%s'", path);
        unlink(temp);
        return -1;
    }
    file = rs_alloc(sizeof(*file));
    file->path = rs_steal(path);
    file->fd = rs_steal_fd(&fd);
    *ret = file;
    return 0;
}

void rs_running_withdraw(struct rs_running_file *file)
{
    if (!file)
        return;
    unlink(file->path);
    rs_closep(&file->fd);
    free(file->path);
    free(file);
}

/* The process that holds the lock; 0: none. -1: one that this pid namespace does not show. */
static pid_t holder(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
        return 0;
    return lock.l_pid > 0 ? lock.l_pid : -1;
}

/* A new reference, with the pid; NULL: nobody's. */
static json_t *read_one(int dir, const char *name)
{
    rs_auto(rs_closep) int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    char text[FILE_MAX + 1];
    struct rs_error err = {0};
    json_t *value = NULL;
    pid_t pid;
    ssize_t n;

    if (fd < 0)
        return NULL;
    pid = holder(fd);
    if (pid == 0)
        unlinkat(dir, name, 0);
    n = pid > 0 ? read(fd, text, FILE_MAX) : -1;
    if (n <= 0 || rs_json_parse(&value, text, (size_t)n, name, &err) < 0)
        return NULL;
    json_object_set_new(value, "pid", json_integer(pid));
    return value;
}

static int newest_first(const void *a, const void *b)
{
    const struct rs_running *x = a, *y = b;

    return (x->started < y->started) - (x->started > y->started);
}

void rs_running_read(struct rs_running_all *ret)
{
    rs_auto(rs_freep) char *path = NULL;
    struct rs_error err = {0};
    DIR *dir = rs_statedir_folder(FOLDER, &path, &err) == 0 ? opendir(path) : NULL;
    json_t *list = json_array();
    json_t *one;
    size_t i;

    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t n = strlen(e->d_name);

        if (e->d_name[0] == '.' || n < 5 || strcmp(e->d_name + n - 5, ".json") != 0)
            continue;
        one = read_one(dirfd(dir), e->d_name);
        if (json_is_object(one))
            json_array_append_new(list, one);
        else
            json_decref(one);
    }
    if (dir)
        closedir(dir);
    *ret = (struct rs_running_all){.count = json_array_size(list), .storage = list};
    ret->items = rs_alloc((ret->count + 1) * sizeof(*ret->items));
    json_array_foreach (list, i, one)
        ret->items[i] = (struct rs_running){
            .pid = (pid_t)rs_json_int(one, "pid", 0),
            .kind = rs_json_str(one, "kind", ""),
            .node_id = rs_json_str(one, "node_id", ""),
            .dashboard = rs_json_str(one, "dashboard", ""),
            .join = rs_json_str(one, "join", ""),
            .http = rs_json_str(one, "http", ""),
            .started = rs_json_num(one, "started", 0),
        };
    qsort(ret->items, ret->count, sizeof(*ret->items), newest_first);
}

void rs_running_fini(struct rs_running_all *all)
{
    free(all->items);
    json_decref(all->storage);
    *all = (struct rs_running_all){0};
}

const struct rs_running *rs_running_head(const struct rs_running_all *all)
{
    const struct rs_running *found = NULL;

    for (size_t i = 0; i < all->count; i++) {
        const struct rs_running *one = &all->items[i];

        if (!one->dashboard[0])
            continue;
        if (strcmp(one->kind, "head") == 0)
            return one;
        if (!found)
            found = one;
    }
    return found;
}
