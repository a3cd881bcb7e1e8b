// WebSocket (RFC 6455): sends masked frames and reads unmasked ones.

import type { Protocol, ResponseEvents, Session } from './session.ts'

const BINARY = 0x82
const CLOSE = 0x88
const MASKED = 0x80

const HEAD = 0
const FRAME = 1
const PAYLOAD = 2

class WebSocketSession implements Session {
  readonly credit = Infinity
  readonly willClose = false
  private readonly events: ResponseEvents
  private state = HEAD
  private head = ''
  private frame: number[] = []
  private left = 0
  private opcode = 0

  constructor (events: ResponseEvents) {
    this.events = events
  }

  consumeCredit (): void {}

  read (bytes: Buffer, length: number): void {
    let at = 0
    while (at < length) {
      if (this.state === PAYLOAD) {
        const to = Math.min(length, at + this.left)
        if (this.opcode === BINARY) this.events.onData(bytes, at, to)
        this.left -= to - at
        at = to
        if (this.left === 0) this.state = FRAME
      } else if (this.state === FRAME) {
        this.readFrame(bytes[at++])
      } else {
        at = this.readHead(bytes, at, length)
      }
    }
  }

  private readFrame (byte: number): void {
    const { frame } = this
    frame.push(byte)
    if (frame.length < 2) return
    const extra = frame[1] === 127 ? 8 : frame[1] === 126 ? 2 : 0
    if (frame.length < 2 + extra) return
    this.left = extra === 0 ? frame[1] : frame.slice(2).reduce((size, digit) => size * 256 + digit)
    this.opcode = frame[0]
    frame.length = 0
    if (this.opcode === CLOSE) this.events.onEnd()
    if (this.left > 0) this.state = PAYLOAD
  }

  private readHead (bytes: Buffer, at: number, length: number): number {
    const before = this.head.length
    this.head += bytes.toString('latin1', at, length)
    const end = this.head.indexOf('\r\n\r\n')
    if (end === -1) return length
    if (!this.head.startsWith('HTTP/1.1 101')) throw new Error(`Unexpected response: ${this.head.slice(0, 40)}`)
    this.state = FRAME
    return at + end + 4 - before
  }
}

const MASK = [0x37, 0xfa, 0x21, 0x3d]

function frame (opcode: number, content: Buffer): Buffer {
  const { length } = content
  const extended = length < 126 ? [] : length < 65536 ? [length >> 8, length & 255] : [0, 0, 0, 0, ...uint32(length)]
  const code = extended.length === 0 ? length : extended.length === 2 ? 126 : 127
  return Buffer.concat([Buffer.from([opcode, MASKED | code, ...extended, ...MASK]), content.map((byte, i) => byte ^ MASK[i % 4])])
}

function uint32 (value: number): number[] {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255]
}

export const websocket: Protocol = {
  createSession: (events) => new WebSocketSession(events),
  maxChunk: Infinity,
  encodeHead: (path) => Buffer.from(`GET ${path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'),
  encodeChunk: (content) => frame(BINARY, content),
  lastChunk: frame(CLOSE, Buffer.from([0x03, 0xe8])),
  encodeExchange: () => null
}
