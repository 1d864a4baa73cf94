#include "sched/supervise/statedir.h"

#include "core/base/alloc.h"
#include "core/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INSTANCES 100

enum { LOCK_TRIES = 60, LOCK_PAUSE_MS = 50 };

struct rs_statedir {
    char *path, *logs, *lib, *run, *values;
    int lock_fd;
};

/* Where root's services keep what outlives them, if it can be written. */
#define ROOT_BASE "/var/lib/rserve"

static bool may_use_root_base(void)
{
    return geteuid() == 0 && (access(ROOT_BASE, W_OK | X_OK) == 0 ||
                              (errno == ENOENT && access("/var/lib", W_OK | X_OK) == 0));
}

static char *default_base(void)
{
    const char *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (xdg && xdg[0] == '/')
        return rs_asprintf("%s/rserve", xdg);
    if (may_use_root_base())
        return rs_strdup(ROOT_BASE);
    if (home && home[0] == '/' && access(home, W_OK | X_OK) == 0)
        return rs_asprintf("%s/.local/state/rserve", home);
    return rs_asprintf("/tmp/rserve-%u", (unsigned)getuid());
}

static int make_dirs(const char *path, struct rs_error *err)
{
    rs_auto(rs_freep) char *p = rs_strdup(path);

    for (char *slash = p + 1;; slash++) {
        char was = *slash;

        if (was != '/' && was != '\0')
            continue;
        *slash = '\0';
        if (mkdir(p, 0700) < 0 && errno != EEXIST)
            return rs_error_errno(err, errno, "cannot make the folder '%s'", p);
        *slash = was;
        if (was == '\0')
            return 0;
    }
}

/* In a place where others may write (/tmp) a folder that someone else prepared is not ours. */
static int check_owner(const char *path, struct rs_error *err)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return rs_error_errno(err, errno, "cannot use the folder '%s'", path);
    if (S_ISLNK(st.st_mode) && stat(path, &st) < 0)
        return rs_error_errno(err, errno, "cannot use the folder '%s'", path);
    if (!S_ISDIR(st.st_mode))
        return rs_error_set(err, RS_INVALID, "'%s' is not a folder", path);
    if (st.st_uid != getuid() && st.st_uid != 0)
        return rs_error_set(err, RS_INVALID,
                            "the folder '%s' belongs to another user; choose one with --state-dir",
                            path);
    return 0;
}

/* 0: ours; 1: another process holds it; -1. */
static int try_lock(const char *dir, int *ret, struct rs_error *err)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/lock", dir);
    rs_auto(rs_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char pid[32];
    int n;

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return 1;
        return rs_error_errno(err, errno, "cannot lock '%s'", path);
    }
    n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || write(fd, pid, (size_t)n) != n) {
        /* it only tells people who holds the lock; a full disk must not stop serving */
    }
    *ret = rs_steal_fd(&fd);
    return 0;
}

static void clear_dir(const char *path)
{
    DIR *d = opendir(path);

    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static char *absolute(const char *base)
{
    rs_auto(rs_freep) char *cwd = NULL;

    if (base[0] == '/')
        return rs_strdup(base);
    cwd = getcwd(NULL, 0);
    return rs_asprintf("%s/%s", cwd ? cwd : "", base);
}

int rs_statedir_folder(const char *name, char **path, struct rs_error *err)
{
    rs_auto(rs_freep) char *base = default_base();
    rs_auto(rs_freep) char *folder = rs_asprintf("%s/%s", base, name);

    if (make_dirs(folder, err) < 0 || check_owner(base, err) < 0)
        return -1;
    *path = rs_steal(folder);
    return 0;
}

/* Who holds it. */
static int refuse_locked(const char *dir, struct rs_error *err)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/lock", dir);
    rs_auto(rs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char pid[32] = "";
    ssize_t n = fd >= 0 ? read(fd, pid, sizeof(pid) - 1) : 0;

    pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
    return rs_error_set(err, RS_CONFLICT,
                        "'%s' is used by another rserve (pid %s): end that one, or give this one a "
                        "folder of its own with --state-dir",
                        dir, pid[0] ? pid : "unknown");
}

/* One that was killed may not have gone yet. */
static int lock_alone(const char *dir, int *ret, struct rs_error *err)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
    int r = 1;

    for (int i = 0; i < LOCK_TRIES && (r = try_lock(dir, ret, err)) == 1; i++)
        (void)nanosleep(&pause, NULL);
    return r == 1 ? refuse_locked(dir, err) : r;
}

int rs_statedir_open(struct rs_statedir **ret, const char *base, const char *name, bool alone,
                     struct rs_error *err)
{
    rs_auto(rs_freep) char *top = base ? absolute(base) : default_base();
    rs_auto(rs_statedir_freep) struct rs_statedir *s = rs_alloc(sizeof(*s));
    int r = 1;

    s->lock_fd = -1;
    if (make_dirs(top, err) < 0 || check_owner(top, err) < 0)
        return -1;
    for (int i = 1; i <= INSTANCES && r == 1; i++) {
        free(s->path);
        s->path = i == 1 ? rs_asprintf("%s/%s", top, name) : rs_asprintf("%s/%s-%d", top, name, i);
        if (make_dirs(s->path, err) < 0)
            return -1;
        r = alone ? lock_alone(s->path, &s->lock_fd, err) : try_lock(s->path, &s->lock_fd, err);
    }
    if (r < 0)
        return -1;
    if (r == 1)
        return rs_error_set(err, RS_CONFLICT, "%d instances already use '%s/%s-*'", INSTANCES, top,
                            name);
    s->logs = rs_asprintf("%s/logs", s->path);
    s->lib = rs_asprintf("%s/lib", s->path);
    s->run = rs_asprintf("%s/run", s->path);
    s->values = rs_asprintf("%s/values", s->path);
    if (make_dirs(s->logs, err) < 0 || make_dirs(s->lib, err) < 0 || make_dirs(s->run, err) < 0 ||
        make_dirs(s->values, err) < 0)
        return -1;
    clear_dir(s->run); /* what an instance left that was killed */
    clear_dir(s->values);
    *ret = rs_steal(s);
    return 0;
}

void rs_statedir_free(struct rs_statedir *s)
{
    if (!s)
        return;
    if (s->values && s->lock_fd >= 0) {
        clear_dir(s->run);
        clear_dir(s->values);
    }
    rs_closep(&s->lock_fd);
    free(s->path);
    free(s->logs);
    free(s->lib);
    free(s->run);
    free(s->values);
    free(s);
}

const char *rs_statedir_path(const struct rs_statedir *s)
{
    return s->path;
}

const char *rs_statedir_logs(const struct rs_statedir *s)
{
    return s->logs;
}

const char *rs_statedir_run(const struct rs_statedir *s)
{
    return s->run;
}

const char *rs_statedir_values(const struct rs_statedir *s)
{
    return s->values;
}

static uint64_t hash_bytes(const unsigned char *data, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        h = (h ^ data[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Is it there, as large as it should be? Its name holds the hash of what is in it. */
static bool have_file(const char *path, size_t len)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size == len;
}

/* Other versions of the same file: of a binary that was replaced. */
static void drop_others(const char *dir, const char *stem, size_t stem_len, const char *keep)
{
    DIR *d = opendir(dir);

    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (strncmp(e->d_name, stem, stem_len) == 0 && e->d_name[stem_len] == '-' &&
            strcmp(e->d_name, keep) != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static int put(const char *dir, bool drop, const char *name, const void *data, size_t len,
               char **path, struct rs_error *err)
{
    const char *dot = strrchr(name, '.');
    size_t stem = dot ? (size_t)(dot - name) : strlen(name);
    rs_auto(rs_freep) char *file = rs_asprintf("%.*s-%016" PRIx64 "%s", (int)stem, name,
                                               hash_bytes(data, len), dot ? dot : "");
    rs_auto(rs_freep) char *full = rs_asprintf("%s/%s", dir, file);
    rs_auto(rs_freep) char *temp = rs_asprintf("%s/.%s.%d", dir, file, (int)getpid());
    rs_auto(rs_closep) int fd = -1;

    if (!have_file(full, len)) {
        fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
            return rs_error_errno(err, errno, "cannot write '%s'", temp);
        if (rs_file_write(fd, data, len, 0) < 0 || rename(temp, full) < 0) {
            rs_error_errno(err, errno, "cannot write '%s'", full);
            unlink(temp);
            return -1;
        }
        if (drop)
            drop_others(dir, name, stem, file);
    }
    *path = rs_steal(full);
    return 0;
}

int rs_statedir_put(struct rs_statedir *s, const char *name, const void *data, size_t len,
                    char **path, struct rs_error *err)
{
    return put(s->lib, true, name, data, len, path, err);
}

int rs_statedir_install(const char *name, const void *data, size_t len, char **path,
                        struct rs_error *err)
{
    rs_auto(rs_freep) char *base = default_base();
    rs_auto(rs_freep) char *lib = rs_asprintf("%s/lib", base);

    if (make_dirs(lib, err) < 0 || check_owner(lib, err) < 0)
        return -1;
    return put(lib, false, name, data, len, path, err);
}
