// The targets of CONNECT tunnels.

import { once } from 'node:events'
import net from 'node:net'
import type { Random } from '../../support/random.ts'

export type Target = 'silent' | 'stuck' | 'echo' | 'fin-rst'

const BEHAVIOURS: Record<Target, (socket: net.Socket, random: Random) => void> = {
  silent: (socket) => { socket.resume().on('end', () => socket.end()) },
  stuck: () => {}, // only the kernel buffers what it receives
  echo: (socket) => { socket.pipe(socket) },
  // Sends FIN, and then RST while the server is ending its own side.
  'fin-rst': (socket, random) => {
    socket.resume().write('bye')
    setTimeout(() => {
      socket.end(() => {
        if (random.chance(0.5)) socket.resetAndDestroy()
        else setTimeout(() => socket.resetAndDestroy(), random.below(4))
      })
    }, random.below(10))
  }
}

export async function listenTarget (target: Target, random: Random): Promise<{ port: number, close: () => void }> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    BEHAVIOURS[target](socket, random)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as net.AddressInfo).port,
    close () {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
  }
}
