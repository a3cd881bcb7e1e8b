// What every Node server of the benchmark does the same way: tell its port, collect garbage when asked, end with its
// parent, count an upload and make a download.

import type { AddressInfo, Server } from 'node:net'
import { Readable, Writable } from 'node:stream'
import { PATTERN, PERIOD } from '../client/pattern.ts'

export function serve (server: Server): void {
  if (server.listening) announce(server)
  else server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => announce(server))
}

function announce (server: Server): void {
  tell({ port: (server.address() as AddressInfo).port })
  process.stdin.on('data', () => {
    // Twice: what finalizers let go of goes with the second.
    globalThis.gc?.()
    globalThis.gc?.()
    tell({ collected: true })
  })
  process.stdin.on('end', () => process.exit())
}

function tell (message: object): void {
  process.stdout.write(JSON.stringify(message) + '\n')
}

export interface Download {
  length: number
  size: number
}

export function download (url: string): Download {
  const query = new URLSearchParams(url.slice(url.indexOf('?')))
  return { length: Number(query.get('length')), size: Number(query.get('size')) }
}

/** `length` bytes of the pattern in pieces of `size`. */
export class Source extends Readable {
  private readonly size: number
  private left: number
  private at = 0

  constructor ({ length, size }: Download) {
    super()
    this.size = size
    this.left = length
  }

  override _read (): void {
    while (this.left > 0) {
      const piece = PATTERN.subarray(this.at, this.at + this.size)
      this.at = (this.at + this.size) % PERIOD
      this.left -= this.size
      if (!this.push(piece)) return
    }
    this.push(null)
  }
}

/** Counts what is written to it. */
export class Counter extends Writable {
  size = 0

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.size += chunk.length
    done()
  }

  override _writev (chunks: { chunk: Buffer }[], done: () => void): void {
    for (const { chunk } of chunks) this.size += chunk.length
    done()
  }
}
