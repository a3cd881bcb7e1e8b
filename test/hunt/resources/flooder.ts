// A process of clients that pipeline requests without end, as fast as the server reads them.

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Random } from '../../support/random.ts'
import { Connection } from './connection.ts'
import type { FloodConfig, FloodReport } from './messages.ts'

/** Bytes of one write. */
const BLOCK_SIZE = 32 * 1024
const BLOCKS = 16

const config: FloodConfig = JSON.parse(process.argv[2])
const random = new Random(config.seed)

function makeBlock (): Buffer {
  let block = ''
  while (block.length < BLOCK_SIZE) block += random.pick(config.requests)
  return Buffer.from(block, 'latin1')
}

const blocks = Array.from({ length: BLOCKS }, makeBlock)

async function flood (): Promise<void> {
  const connections = await Promise.all(Array.from({ length: config.connections }, () => Connection.open(config.address, config.transport)))
  for (const connection of connections) {
    if (config.reads) connection.read()
    if (config.first !== '') await connection.send(config.first).waitFor('ok')
  }
  await Promise.race([Promise.all(connections.map(pour)), sleep(config.milliseconds)])
  const report: FloodReport = {
    sent: connections.reduce((sum, { socket }) => sum + socket.bytesWritten - socket.writableLength, 0),
    closed: connections.filter(({ socket }) => socket.destroyed || socket.readableEnded).length
  }
  process.send!(report)
}

async function pour ({ socket }: Connection): Promise<void> {
  while (!socket.destroyed) {
    if (!socket.write(random.pick(blocks))) await once(socket, 'drain').catch(() => {})
  }
}

// The clients stay connected until the parent has measured the server.
process.on('message', () => process.exit())
flood()
