// The targets of tunnels: servers that behave in different ways.

import { once } from 'node:events'
import net from 'node:net'
import { setImmediate as immediate } from 'node:timers/promises'

const TARGETS: Record<string, (socket: net.Socket) => unknown> = {
  echo: (socket) => socket.pipe(socket),
  silent: (socket) => socket.resume(),
  /** Sends FIN, and then RST when it receives anything. */
  leave: (socket) => socket.end('bye', () => socket.destroy()),
  /** Sends FIN, and then RST. */
  'end and reset': (socket) => {
    socket.end('bye')
    socket.once('finish', async () => {
      await immediate()
      socket.resetAndDestroy()
    })
  },
  reset: (socket) => socket.once('data', () => socket.resetAndDestroy())
}

export const TARGET_NAMES = [...Object.keys(TARGETS), 'nobody']

export interface Targets {
  /** `host:port`, by name. */
  authorities: Record<string, string>
  close: () => void
}

export async function listenTargets (): Promise<Targets> {
  const authorities: Record<string, string> = { nobody: '127.0.0.1:1' }
  const open = new Set<{ close: () => void }>()
  for (const [name, behave] of Object.entries(TARGETS)) {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const one = { close: () => socket.destroy() }
      open.add(one)
      socket.on('close', () => open.delete(one))
      socket.on('error', () => {})
      behave(socket)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    authorities[name] = `127.0.0.1:${(server.address() as net.AddressInfo).port}`
    open.add({ close: () => server.close() })
  }
  return { authorities, close: () => { for (const one of open) one.close() } }
}
