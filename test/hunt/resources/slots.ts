// Checks whether `maxExchanges` exchanges can be open at the same time. Fewer can if an exchange has not released its slot.

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import http2 from 'node:http2'
import { Connection } from './connection.ts'
import type { Address, Transport } from './messages.ts'
import type { ServerProcess } from './server-process.ts'
import { open } from './states.ts'

/** A way to open exchanges, and to leave them. */
interface Opener {
  /** Opens an exchange. @returns the status code of its response */
  open (): Promise<number>
  leave (): Promise<void>
}

/** Opens exchanges until all slots are taken or the deadline has passed. @returns how many are open */
export async function takeSlots (server: ServerProcess, transport: Transport, slots: number, deadline: number): Promise<number> {
  const opener = transport === 'http2' ? overStreams(server.address) : overConnections(server.address, transport)
  let open = 0
  try {
    while (open < slots) {
      if (await opener.open() === 200) open++
      else if (Date.now() > deadline) break
      else await sleep(100)
    }
    return open
  } finally {
    await opener.leave()
  }
}

function overConnections (address: Address, transport: Transport): Opener {
  const connections: Connection[] = []
  return {
    async open () {
      const connection = await Connection.open(address, transport)
      await connection.read().send(open('/slot')).waitFor('\r\n\r\n')
      const status = Number(connection.received.slice(9, 12))
      if (status === 200) connections.push(connection)
      else await connection.leave('destroy')
      return status
    },
    async leave () {
      await Promise.all(connections.map((connection) => connection.leave('destroy')))
    }
  }
}

function overStreams (address: Address): Opener {
  const session = http2.connect(`http://127.0.0.1:${(address as { port: number }).port}`)
  session.on('error', () => {})
  return {
    async open () {
      const stream = session.request({ ':method': 'POST', ':path': '/slot' }, { endStream: false })
      stream.on('error', () => {})
      const [headers] = await once(stream, 'response') as [http2.IncomingHttpHeaders & { ':status': number }]
      if (headers[':status'] !== 200) stream.close()
      return headers[':status']
    },
    async leave () {
      const closed = once(session, 'close')
      session.destroy()
      await closed
    }
  }
}
