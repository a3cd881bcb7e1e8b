// The longest turn of the event loop. A machine that runs something else meanwhile makes turns long on the clock, so a
// turn counts as long as the process was computing in it.

const INTERVAL = 5

export class TurnMeter {
  private longest = 0
  private wall = performance.now()
  private cpu = process.cpuUsage()

  constructor () {
    setInterval(() => this.look(), INTERVAL).unref()
  }

  /** Milliseconds since the last reset. */
  get milliseconds (): number {
    return this.longest
  }

  reset (): void {
    this.longest = 0
    this.wall = performance.now()
    this.cpu = process.cpuUsage()
  }

  private look (): void {
    const wall = performance.now()
    const { user, system } = process.cpuUsage(this.cpu)
    this.longest = Math.max(this.longest, Math.min(wall - this.wall, (user + system) / 1000))
    this.wall = wall
    this.cpu = process.cpuUsage()
  }
}
