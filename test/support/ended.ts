// When the peer of a socket has ended its side, or the connection is gone.

import type { Duplex } from 'node:stream'

/** @param onEnd called then, before the promise resolves */
export function endOf (socket: Duplex, onEnd: () => void): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      onEnd()
      resolve()
    }
    socket.on('end', end).on('close', end)
  })
}
