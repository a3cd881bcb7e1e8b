// How long `app.close()` takes while exchanges are open.

import { http1 } from '../client/http1.ts'
import { openTalkers } from '../client/talk.ts'
import { onNode } from '../peers.ts'
import { Server } from '../server.ts'
import { upToLimit } from './growth.ts'

const ENDED_BY = [['shutdown', 'ended by their handlers at `shutdown`'], ['destroy', 'cut off, `closeGrace: 0`']] as const

export interface Close {
  what: string
  /** Exchanges that were open. */
  open: number
  seconds: number
  processorSeconds: number
}

export async function close (maxOpen: number): Promise<Close[]> {
  const results: Close[] = []
  const open = upToLimit(maxOpen)
  for (const [endedBy, what] of ENDED_BY) {
    const server = await Server.start(onNode(`close-${endedBy}`, what, http1, 'close.js', [endedBy]))
    try {
      const talkers = await openTalkers(server, open)
      await server.collect()
      const before = server.processorTime
      const { seconds } = await server.close()
      results.push({ what, open, seconds, processorSeconds: server.processorTime - before })
      for (const talker of talkers) talker.close()
    } finally {
      await server.stop()
    }
  }
  return results
}
