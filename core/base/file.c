#include "core/base/file.h"

#include <errno.h>
#include <unistd.h>

int rs_file_read(int fd, void *to, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(fd, (char *)to + done, len - done, (off_t)(at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0) {
            errno = ENODATA;
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

int rs_file_write(int fd, const void *data, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0) {
            errno = ENOSPC;
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

int rs_file_copy(int from, uint64_t from_at, int to, uint64_t to_at, uint64_t len)
{
    char piece[16 << 10];

    for (uint64_t done = 0; done < len;) {
        size_t n = len - done < sizeof(piece) ? (size_t)(len - done) : sizeof(piece);

        if (rs_file_read(from, piece, n, from_at + done) < 0 ||
            rs_file_write(to, piece, n, to_at + done) < 0)
            return -1;
        done += n;
    }
    return 0;
}
